"""Fixtures: `serve_pusher` starts an application, `dial_pusher` connects, `auth` is a backend that signs.

`node` runs pusher-js and Echo.
"""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import threading
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pusher
import pytest

from fastws import ConnectionManager, Server
from fastws.pusher.listener import PusherListener
from fastws.pusher.settings import PusherSettings
from fastws.pusher.start import add_to
from fastws.testing import connect, running
from fastws.web.app import Web

from ..hooks.conftest import backend  # noqa: F401  (a fixture)
from ..lib.raw import TIMEOUT

NODE = Path(__file__).parent / "node"
ID, KEY, SECRET = "4242", "app-key", "a secret of 24 bytes long"
MASTER_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="  # of encrypted channels
USER = {"id": "ann", "user_info": {"name": "Ann"}}


def library(port: int = 1, **options: Any) -> pusher.Pusher:
    """Pusher's own server library."""
    options = {"app_id": ID, "key": KEY, "secret": SECRET, "encryption_master_key_base64": MASTER_KEY, **options}
    return pusher.Pusher(host="127.0.0.1", port=port, ssl=False, **options)


@dataclass
class App:
    """A running server with one application."""

    server: Server
    listener: PusherListener
    url: str  # ws://127.0.0.1:port

    @property
    def manager(self) -> ConnectionManager:
        return self.listener.manager

    @property
    def port(self) -> int:
        return self.server.port

    async def call(self, method: str, *arguments: Any, **more: Any) -> Any:
        """A method of Pusher's own server library."""
        return await asyncio.to_thread(getattr(library(self.port), method), *arguments, **more)


def put_on(server: Server, **settings: Any) -> PusherListener:
    """The application on a server that has not started."""
    web = Web()
    listener = add_to(server, web, PusherSettings(app_id=ID, key=KEY, secret=SECRET, **settings))
    server.reconfigure(http=web)
    return listener


@pytest.fixture
async def serve_pusher():
    """`await serve_pusher(**settings)` is an App; `server` may be one that has not started."""
    async with AsyncExitStack() as stack:

        async def start(server=None, **settings):
            server = server or Server(port=0)
            listener = put_on(server, **settings)
            return App(server, listener, await stack.enter_async_context(running(server)))

        yield start


class Wire:
    """One connection of the protocol, frame by frame; data is decoded where it is JSON."""

    def __init__(self, client):
        self.client = client
        self.socket_id = ""

    async def send(self, event, data=None, **fields):
        await self.client.send({"event": event, "data": {} if data is None else data, **fields})

    async def receive(self):
        """(event, channel, data) of the next frame."""
        return said(await self.client.receive())

    async def so_far(self):
        """All that has come until now."""
        return [said(each) for each in await self.client.received()]

    async def subscribe(self, channel, auth=None, channel_data=None):
        """Subscribe, as whoever the application's backend signs; returns the first answer."""
        data = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            signed = library().authenticate(channel, self.socket_id, channel_data)
            data |= {name: signed[name] for name in ("auth", "channel_data") if name in signed}
        data |= {} if auth is None else {"auth": auth}
        await self.send("pusher:subscribe", data)
        return await self.receive()

    async def join(self, channel, user_id, **info):
        """Be in a presence channel; returns who is there."""
        event, _, data = await self.subscribe(channel, channel_data={"user_id": user_id, "user_info": info})
        assert event == "pusher_internal:subscription_succeeded", data
        return data["presence"]

    async def closed(self):
        return await self.client.closed()


def said(frame):
    frame = json.loads(frame)
    data = frame.get("data")
    assert isinstance(data, str) or frame["event"].startswith("client-"), frame
    with suppress(TypeError, ValueError):
        data = json.loads(data)
    return frame["event"], frame.get("channel"), data


@pytest.fixture
async def dial_pusher(serve_pusher):
    """`await dial_pusher(app)` is a Wire that was greeted; with `query` one that was not."""
    async with AsyncExitStack() as stack:

        async def dial(app, query=None, key=KEY):
            url = f"{app.url}/app/{key}{'?protocol=7' if query is None else query}"
            wire = Wire(await stack.enter_async_context(connect(url, timeout=TIMEOUT)))
            if query is None and key == KEY:
                event, _, data = await wire.receive()
                assert event == "pusher:connection_established"
                wire.socket_id = data["socket_id"]
            return wire

        yield dial


# -- an application's backend, which signs for everybody


class Signing(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        fields = {name: values[0] for name, values in parse_qs(body).items()}
        user = json.loads(self.headers.get("x-user") or json.dumps(USER))
        if self.path == "/user-auth":
            answer = library().authenticate_user(fields["socket_id"], user)
        elif user["id"] == "mallory":
            self.send_error(403)
            return
        else:
            data = {"user_id": user["id"], "user_info": user["user_info"]}
            is_presence = fields["channel_name"].startswith("presence-")
            answer = library().authenticate(fields["channel_name"], fields["socket_id"], data if is_presence else None)
        self.answer(200, json.dumps(answer, default=bytes.decode).encode(), "application/json")

    def do_GET(self):
        path = self.server.pages.get(self.path)
        self.answer(200, *path) if path else self.send_error(404)

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def auth():
    """Its URL; `pages` of the server are what it shows besides, by path."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Signing) as server:
        server.pages = {}
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# -- webhooks


@pytest.fixture
async def told(backend):  # noqa: F811
    """`await told(number)` are the first so many events, each request verified by Pusher's library."""

    async def first(number):
        def events():
            found = []
            for post in backend.posts:
                key, signature = post.headers["x-pusher-key"], post.headers["x-pusher-signature"]
                webhook = library().validate_webhook(key, signature, post.body.decode())
                assert webhook is not None
                assert post.headers["content-type"] == "application/json"
                found += webhook["events"]
            return found if len(found) >= number else None

        return await backend.until(events)

    return first


# -- Pusher's and Laravel's clients


class Driven:
    """Clients that do what they are asked, and what they hear: (client, channel, event, data)."""

    def __init__(self, command):
        self._command = command
        self._numbers = itertools.count()
        self._answers = {}
        self._changed = asyncio.Event()
        self.heard = []

    def hear(self, channel, event, data, name):
        if event == "answer":
            self._answers[name] = data
        else:
            self.heard.append((name, channel, event, data))
        self._changed.set()

    async def ask(self, *command):
        number = next(self._numbers)
        await self._command([number, *command])
        async with asyncio.timeout(TIMEOUT):
            while number not in self._answers:
                await self._change()
        return self._answers.pop(number)

    async def until(self, name, channel, event, data=...):
        """Wait for something and return its data; it and what was heard before is passed over."""
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    for place, heard in enumerate(self.heard):
                        if heard[:3] == (name, channel, event) and data in (..., heard[3]):
                            del self.heard[: place + 1]
                            return heard[3]
                    await self._change()
        except TimeoutError:
            raise AssertionError(f"no {name, channel, event, data} among {self.heard}") from None

    async def _change(self):
        self._changed.clear()
        await self._changed.wait()


def needs_node():
    """Skip a test that cannot be, except in CI."""
    if shutil.which("node") is None or not (NODE / "node_modules" / "pusher-js").is_dir():
        missing = "optional: pusher-js is not installed: run npm install in tests/pusher/node"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)


@pytest.fixture
async def node():
    """In Node, in a process of its own."""
    needs_node()
    process = await asyncio.create_subprocess_exec(
        "node", "node.mjs", cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20
    )

    async def command(command):
        process.stdin.write(json.dumps(command).encode() + b"\n")

    driven = Driven(command)

    async def listen():
        while line := await process.stdout.readline():
            driven.hear(*json.loads(line))

    listening = asyncio.ensure_future(listen())
    yield driven
    process.stdin.close()
    process.kill()
    await process.wait()
    await listening


def options_for(app, auth=None, user=None):
    """How pusher-js reaches an application and its backend."""
    options = {"wsHost": "127.0.0.1", "wsPort": app.port}
    if auth is not None:
        headers = {} if user is None else {"x-user": json.dumps(user)}
        options["channelAuthorization"] = {"endpoint": f"{auth.url}/auth", "headers": headers}
        options["userAuthentication"] = {"endpoint": f"{auth.url}/user-auth", "headers": headers}
    return options
