"""A server of settings alone with the status page, and what tests ask of it."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fastws.command.settings import load
from fastws.standalone import create_server
from fastws.testing import running

KEY = "a-key-of-the-operator-0123456789"
READER = "a-key-that-only-reads-0123456789"
NARROW = "a-key-for-some-channels-0123456"
SENDER = "a-key-that-only-sends-0123456789"
TIMEOUT = 10
SETTINGS = f"""
origins = ["https://www.example.org"]
{{top}}
[api]
{{api}}
[[api.keys]]
name = "operator"
key = "{KEY}"
[[api.keys]]
name = "reader"
key = "{READER}"
allow = ["read"]
[[api.keys]]
name = "narrow"
key = "{NARROW}"
channels = ["shop.*"]
[[api.keys]]
name = "sender"
key = "{SENDER}"
allow = ["send"]
[raw]
[admin]
{{admin}}
[[channels]]
pattern = "*"
subscribe = "anyone"
publish = "member"
presence = true
"""
ORIGIN = "https://www.example.org"


def settings(folder, top="port = 0", api="", admin=""):
    """The settings of a file that says so."""
    file = folder / "fastws.toml"
    file.write_text(SETTINGS.format(top=top, api=api, admin=admin))
    return load(file, {}, {})


class Status:
    """A page's WebSocket."""

    def __init__(self, ws):
        self.ws = ws

    async def say(self, frame):
        await self.ws.send(json.dumps(frame))

    async def hear(self, kind, fits=lambda frame: True):
        """The next frame of a kind, and that fits; the others are passed over."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                frame = json.loads(await self.ws.recv())
                if frame["type"] == kind and fits(frame):
                    return frame

    async def ended(self):
        """The close code and the reason; what still comes before it is returned, too."""
        told = []
        async with asyncio.timeout(TIMEOUT):
            try:
                while True:
                    told.append(await self.ws.recv())
            except ConnectionClosed as closed:
                return closed.rcvd.code, closed.rcvd.reason, told


class Site:
    """The running server."""

    def __init__(self, server, url, clients):
        self.server = server
        self.url = url
        self._clients = clients

    @property
    def page(self):
        return f"http://127.0.0.1:{self.server.port}/admin"

    async def dial(self, path="/admin/ws", port=None):
        url = self.url if port is None else f"ws://127.0.0.1:{port}"
        return Status(await self._clients.enter_async_context(connect(url + path)))

    async def status(self, key=KEY, **options):
        """A page's socket, and what it was welcomed with."""
        status = await self.dial(**options)
        await status.say({"key": key})
        status.welcome = await status.hear("welcome")
        return status

    async def join(self, channel, user=None):
        """A plain socket in a channel."""
        path = f"/raw/{quote(channel, safe='')}" + ("" if user is None else f"?user={quote(user)}")
        return await self._clients.enter_async_context(connect(self.url + path, origin=ORIGIN))


def by_query(server):
    """Have plain sockets say who they are: /raw/cars?user=ann."""
    listener = server.endpoints["/raw/{channel}"].listener
    admit = listener.on_handshake

    def on_handshake(request):
        request.user = request.query.get("user")
        return admit(request)

    server.endpoints["/raw/{channel}"].life._handlers["on_handshake"] = on_handshake


@asynccontextmanager
async def serving(found):
    server = create_server(found)
    by_query(server)
    async with running(server) as url, AsyncExitStack() as clients:
        yield Site(server, url, clients)
