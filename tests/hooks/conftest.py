"""Fixtures: `backend` answers as the test says, `hooks` asks and tells it."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from fastws import Reject, Request
from fastws.hooks import HookListener, Hooks, HookSettings
from fastws.v1.decisions import Refused
from fastws.v1.raw import RawListener

from ..lib.support import TIMEOUT
from ..lib.v1 import serving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # of the specification's own example


@dataclass
class Post:
    """A request that came."""

    path: str
    headers: dict[str, str]  # by lower-case name
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def types(self) -> list[str]:
        """Of the events in a batch."""
        return [event["type"] for event in self.json["events"]]


def reply(status: int = 200, content: Any = None, headers: str = "", body: bytes | None = None) -> bytes:
    """A whole HTTP answer."""
    body = json.dumps({} if content is None else content).encode() if body is None else body
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Backend:
    """An HTTP server whose answers are bytes. `answer(post)`, async, returns them; None closes the connection."""

    def __init__(self):
        self.posts: list[Post] = []
        self.connections = 0
        self.port = 0
        self.answer = self.yes
        self._server = None
        self._writers = set()
        self._changed = asyncio.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"

    async def yes(self, post):
        return reply()

    def says(self, *answers):
        """These in turn, and the last one from then on."""
        left = list(answers)

        async def answer(post):
            return left.pop(0) if len(left) > 1 else left[0]

        self.answer = answer

    @property
    def events(self):
        """All events told, in the order in which they came, each once."""
        seen = {event["seq"]: event for post in self.posts if "events" in post.json for event in post.json["events"]}
        return list(seen.values())

    async def until(self, true):
        """Wait until something is true of what came; returns what it was."""
        async with asyncio.timeout(TIMEOUT):
            while not (found := true()):
                self._changed.clear()
                await self._changed.wait()
        return found

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        """As a kill does: nobody listens, and every connection is reset."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = dict(line.split(": ", 1) for line in head[1:] if line)
                headers = {name.lower(): value for name, value in fields.items()}
                body = await reader.readexactly(int(headers["content-length"]))
                post = Post(head[0].split(" ")[1], headers, body)
                self.posts.append(post)
                self._changed.set()
                answering, leaving = asyncio.ensure_future(self.answer(post)), asyncio.ensure_future(reader.read(1))
                await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
                leaving.cancel()
                await asyncio.wait((leaving,))
                if not answering.done():  # whoever asked has hung up
                    answering.cancel()
                    break
                answer = answering.result()
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


ALL = ("connect", "subscribe", "publish", "call")


@pytest.fixture
async def backend():
    found = Backend()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def hooks(backend):
    """`hooks(**settings)` are Hooks for that backend."""
    async with AsyncExitStack() as stack:

        def make(**settings):
            made = Hooks(HookSettings(**{"url": backend.url, "heartbeat": 0, **settings}))
            stack.push_async_callback(made.close, 0.1)
            return made

        yield make


def request_of(target="/ws/cars?a=b", **fields):
    """A handshake's request."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return Request("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode())


class Somebody:
    """As much of a WebSocket as hooks look at."""

    def __init__(self, user="ann", id="1-1"):
        self.request = request_of()
        self.user, self.id = user, id


def ask(hooks, event, ws=None):
    ws = ws or Somebody()
    match event:
        case "connect":
            return hooks.connect(request_of())
        case "subscribe":
            return hooks.subscribe(ws, "cars")
        case "publish":
            return hooks.publish(ws, "cars", {"a": 1}, None)
        case "call":
            return hooks.call(ws, "add", [1, 2])


async def refused(hooks, event="connect"):
    """How the ask failed: as nothing but an unavailable backend."""
    if event == "connect":
        with pytest.raises(Reject) as caught:
            await ask(hooks, event)
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "5"})
    else:
        with pytest.raises(Refused) as caught:
            await ask(hooks, event)
        assert (caught.value.code, caught.value.retry) == ("unavailable", True)


@pytest.fixture
async def site(backend):
    """`async with site(**hook_settings) as (site, listener)`."""

    def make(raw=False, options=None, **settings):
        of_hooks = {"url": backend.url, "heartbeat": 0, "ask": ALL, "tell": (), **settings}
        listener = HookListener(HookSettings(**of_hooks))
        beside = RawListener(listener.rules, backend=listener.hooks) if raw else None
        return serving(listener, beside, subprotocols=["fastws.v1"], **(options or {}))

    return make


def answers(backend, **by_event):
    """What the backend says, by event: content, a whole reply, or a function of the post; {} to all others."""

    async def answer(post):
        said = by_event.get(post.json["event"], {})
        if callable(said):
            said = said(post)
            if asyncio.iscoroutine(said):
                said = await said
        return said if isinstance(said, bytes) else reply(200, said)

    backend.answer = answer


def events(backend, *types):
    return [event for event in backend.events if event["type"] in types]
