"""Clients of fastws.v1, on the library `websockets`, and a server to talk to."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fastws import ConnectionManager, History, Latest, Server
from fastws.access.rules import ChannelRule, Rules
from fastws.testing import running
from fastws.v1.listener import PROTOCOL, ChannelListener
from fastws.v1.raw import RawListener

TIMEOUT = 5.0
#: What channels keep, in tests of that.
LOGS = {"room-*": History(size=5), "price-*": Latest(changes=5), "*-all": History(size=10_000)}
OPEN = {"subscribe": "anyone", "publish": "member", "whisper": "member"}


def rules(*of, **claims) -> Rules:
    """Rules from dicts; one that is a str is a pattern for everybody."""
    return Rules([ChannelRule(pattern=r, **OPEN) if isinstance(r, str) else ChannelRule(**r) for r in of], **claims)


class Named(ChannelListener):
    """Users by the query string: /ws?user=ann."""

    def on_handshake(self, request):
        request.user = request.query.get("user")
        return super().on_handshake(request)


class NamedRaw(RawListener):
    def on_handshake(self, request):
        request.user = request.query.get("user")
        return super().on_handshake(request)


class Client:
    """One connection; nothing waits forever."""

    def __init__(self, ws) -> None:
        self.ws = ws
        self.welcome: dict[str, Any] = {}

    async def send(self, frame: Any) -> None:
        """A dict as JSON; text and bytes as they are."""
        await self.ws.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def receive(self) -> Any:
        """The next frame."""
        return json.loads(await self.text())

    async def text(self) -> Any:
        async with asyncio.timeout(TIMEOUT):
            return await self.ws.recv()

    async def ask(self, frame: Any) -> Any:
        """Send a frame and return what comes next."""
        await self.send(frame)
        return await self.receive()

    async def hello(self, **fields: Any) -> list[Any]:
        """Say hello; the frames that follow the welcome, one for each channel."""
        self.welcome = await self.ask({"type": "hello", "version": 1, **fields})
        assert self.welcome["type"] == "welcome", self.welcome
        return [await self.receive() for _ in fields.get("channels", ())]

    async def so_far(self) -> list[Any]:
        """All that arrives before the answer to a frame without a type, sent now: the server answers in order."""
        await self.send({"id": "so far"})
        found = []
        while (frame := await self.receive()).get("id") != "so far":
            found.append(frame)
        return found

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; its code and reason. What still arrives is dropped."""
        try:
            while True:
                await self.text()
        except ConnectionClosed as closed:
            return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


class Site:
    """A running server that speaks fastws.v1 at /ws and /ws/{room}."""

    def __init__(self, server: Server, manager: ConnectionManager, url: str, clients: AsyncExitStack) -> None:
        self.server = server
        self.manager = manager
        self.url = url
        self._clients = clients

    async def dial(self, path: str = "/ws", *, subprotocols=(PROTOCOL,), **options: Any) -> Client:
        """Open a connection."""
        ws = await self._clients.enter_async_context(connect(self.url + path, subprotocols=subprotocols, **options))
        return Client(ws)

    async def join(self, user: str | None = None, *channels: str, path: str = "/ws", **options: Any) -> Client:
        """Open a connection, say hello, and be in channels."""
        client = await self.dial(path if user is None else f"{path}?user={user}", **options)
        for answer in await client.hello(channels=dict.fromkeys(channels)):
            assert answer["type"] == "subscribed", answer
        return client


@asynccontextmanager
async def serving(listener: ChannelListener, raw: RawListener | None = None, server: Server | None = None, **options):
    """Serve a listener, and plain sockets beside it; `options` are the endpoint's."""
    server = server or Server(port=0)
    manager = server.endpoint(["/ws", "/ws/{room}"], listener, **options)
    if raw is not None:
        server.endpoint("/raw/{channel}", raw)
    async with running(server) as url, AsyncExitStack() as clients:
        yield Site(server, manager, url, clients)
