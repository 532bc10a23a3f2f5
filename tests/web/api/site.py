"""A server with the API, and what tests ask of it."""

import asyncio
import json

from fastws import Listener, Server
from fastws.access.keys import KeySettings
from fastws.hub import Hub
from fastws.testing import connect, running
from fastws.web import api
from fastws.web.app import Web
from tests.lib.support import eventually

KEY = "a-key-of-the-shop-0123456789"
READER = "a-key-that-only-reads-0123456789"
BEARER = {"Authorization": f"Bearer {KEY}"}
KEYS = (
    KeySettings(name="shop", key=KEY),
    KeySettings(name="reader", key=READER, allow=("read",), channels=("shop.*", "cars")),
    KeySettings(name="narrow", key="a-key-for-some-channels-01234", channels=("shop.*",)),
)
NARROW = {"Authorization": "Bearer a-key-for-some-channels-01234"}


class Plain(Listener):
    """Whoever the query string says."""

    def on_handshake(self, request):
        request.user = request.query.get("user")


class Wrapping(Plain):
    """Wraps what goes out, and counts how often."""

    wrapped = 0

    def envelope(self, channel, message, sender):
        self.wrapped += 1
        return {"channel": channel, "message": message, "from": sender and sender._asdict()}

    def direct(self, message):
        return {"direct": message}


class Site:
    """A running server with two endpoints, and clients that leave before it stops."""

    def __init__(self, stack, keys=KEYS, settings=None, **options):
        self.stack = stack
        self.web = Web()
        self.server = Server(port=0, http=self.web, **options)
        self.raw = self.server.endpoint("/raw/{channel}", Plain())
        self.ws = self.server.endpoint("/ws/{channel}", Wrapping())
        self.hub = Hub(self.server)
        self.api = api.add_to(self.web, self.hub, settings or api.ApiSettings(keys=keys))

    async def start(self):
        self.ws_url = await self.stack.enter_async_context(running(self.server))
        self.url = self.ws_url.replace("ws:", "http:") + "/api"
        return self

    async def join(self, path):
        """A client that is in its channel."""
        before = sum(manager.connection_count for manager in self.hub.managers)
        client = await self.stack.enter_async_context(connect(self.ws_url + path))
        await eventually(lambda: sum(manager.connection_count for manager in self.hub.managers) > before)
        return client


async def curl(*arguments, data=None):
    """What curl gets: the status, the header, the body; that as JSON if it is."""
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-sS",
        "-i",
        "--max-time",
        "10",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(data)
    assert process.returncode == 0, err.decode()
    head, _, body = out.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    status = int(lines[0].split()[1])
    return status, fields, json.loads(body) if "json" in fields.get("content-type", "") and body else body
