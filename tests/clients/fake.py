"""A server of fastws.v1 by `websockets` that says what a test has it say: wrong frames, nothing, each close code."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

TIMEOUT = 20  # seconds
RETRY = [0.01, 0.05]
FROM = {"user": "bob", "id": "fake-b"}
NEW = {"log": None, "position": None, "recovered": False, "reason": "new", "count": 0}


class Connection:
    """One client at the fake server: what it sent, and what it is sent."""

    def __init__(self, fake, socket):
        self.fake = fake
        self.socket = socket
        self.path = socket.request.path
        self.offered = [each.strip() for each in socket.request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        self.authorization = socket.request.headers.get("Authorization")
        self.frames = asyncio.Queue()

    async def next(self, kind=None, **fields):
        """The next frame (of this type); those before it are passed over."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                frame = await self.frames.get()
                if (kind is None or frame.get("type") == kind) and fields.items() <= frame.items():
                    return frame

    async def send(self, *frames):
        for frame in frames:
            await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def close(self, code, reason=""):
        await self.socket.close(code, reason)

    def drop(self):
        self.socket.transport.abort()

    async def ended(self):
        """Wait for the end; returns the code that the client gave."""
        await asyncio.wait_for(self.socket.wait_closed(), TIMEOUT)
        return self.socket.close_code

    async def answer(self, frame):
        kind, channel, ident = frame.get("type"), frame.get("channel"), frame.get("id")
        head = {} if ident is None else {"id": ident}
        if kind == "hello":
            await self.send({"type": "welcome", "version": 1, "id": f"fake-{next(self.fake.ids)}", **self.fake.welcome})
            for name in frame["channels"]:
                await self.send(self.fake.subscribed(name))
        elif kind == "subscribe":
            await self.send(head | self.fake.subscribed(channel))
        elif kind == "unsubscribe":
            await self.send(head | {"type": "unsubscribed", "channel": channel, "reason": "asked"})
        elif kind in ("publish", "whisper"):
            await self.send(head | {"type": "ack", "connections": 1})
        elif kind == "call":
            await self.send(head | {"type": "result", "result": frame["params"]})
        elif kind == "authenticate":
            await self.send(head | {"type": "authenticated", "expires": self.fake.welcome["expires"]})


class Fake:
    """`silent`: types of frame that are not answered; `refused`: the errors of channels; `welcome` can be changed."""

    def __init__(self):
        self.welcome = {"user": "ann", "expires": None, "heartbeat": 20, "retry": RETRY, "data": None}
        self.silent = set()
        self.refused = {}
        self.closes_at_once = None  # code and reason
        self.connections = []
        self.ids = itertools.count(1)
        self._new = asyncio.Queue()

    def subscribed(self, channel):
        if channel in self.refused:
            return {"type": "error", "channel": channel, "message": "no", "retry": False, **self.refused[channel]}
        return {"type": "subscribed", "channel": channel, "subscribers": 1, **NEW}

    async def connection(self) -> Connection:
        """The next one that was not asked for yet."""
        return await asyncio.wait_for(self._new.get(), TIMEOUT)

    async def _serve(self, socket):
        connection = Connection(self, socket)
        self.connections.append(connection)
        self._new.put_nowait(connection)
        if self.closes_at_once:
            await socket.close(*self.closes_at_once)
        try:
            async for text in socket:
                frame = json.loads(text)
                connection.frames.put_nowait(frame)
                if frame.get("type") not in self.silent:
                    await connection.answer(frame)
        except ConnectionClosed:
            pass


@asynccontextmanager
async def faking(port=0):
    fake = Fake()

    def choose(connection, offered):
        return "fastws.v1" if "fastws.v1" in offered else None

    async with serve(
        fake._serve, "127.0.0.1", port, select_subprotocol=choose, compression=None, close_timeout=0.2
    ) as server:
        fake.port = server.sockets[0].getsockname()[1]
        fake.url = f"ws://127.0.0.1:{fake.port}/ws"
        yield fake


def said(channel, message, **more):
    return {"type": "message", "channel": channel, "message": message, "from": FROM, "time": 7, **more}


def heard(emitter, event):
    """A queue of what a listener hears."""
    queue = asyncio.Queue()
    emitter.on(event, lambda *values: queue.put_nowait(values[0] if values else None))
    return lambda: asyncio.wait_for(queue.get(), TIMEOUT)
