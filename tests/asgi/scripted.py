"""An ASGI application whose part is played by the test."""

import asyncio

from fastws.testing import Refused

from ..lib.raw import TIMEOUT

ACCEPT = {"type": "websocket.accept"}


class Call:
    """One WebSocket that the application has: the test receives, sends and returns for it."""

    def __init__(self, scope, receive, send):
        self.scope, self.send, self._receive = scope, send, receive
        self.end = asyncio.get_running_loop().create_future()
        self.was_cancelled = False

    async def receive(self):
        async with asyncio.timeout(TIMEOUT):
            return await self._receive()

    async def say(self, text):
        await self.send({"type": "websocket.send", "text": text})

    def returns(self):
        if not self.end.done():
            self.end.set_result(None)

    def raises(self, error):
        self.end.set_exception(error)


class Scripted:
    """Hands each WebSocket to the test; its lifespan leaves a state."""

    def __init__(self, join, options):
        self._join, self._options = join, options
        self._arrived = asyncio.Queue()
        self._calls, self._clients = [], []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["begun"] = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        call = Call(scope, receive, send)
        self._calls.append(call)
        self._arrived.put_nowait(call)
        try:
            await call.end
        except asyncio.CancelledError:
            call.was_cancelled = True
            raise

    async def asked(self, path="/", **options):
        """Have a client connect. Returns the call, which has received the connect, and the client's task."""
        client = asyncio.create_task(self._join(self.url + path, **{**self._options, **options}))
        self._clients.append(client)
        async with asyncio.timeout(TIMEOUT):
            call = await self._arrived.get()
        assert await call.receive() == {"type": "websocket.connect"}
        return call, client

    async def open(self, path="/", **options):
        """Have a client connect, and accept it. Returns the call and the client."""
        call, client = await self.asked(path, **options)
        await call.send(ACCEPT)
        return call, await client

    async def refused(self, client):
        """The refusal that a client's task ends with."""
        try:
            await client
        except Refused as refused:
            return refused
        raise AssertionError("it was accepted")

    async def finish(self):
        for call in self._calls:
            call.returns()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
