"""The status page: what is on a server, what goes through it, and why somebody did not get in.

The page is one file, which loads nothing but itself. It asks for an API key, and uses the HTTP API for what that has.
Everything else comes over a WebSocket at ``/ws`` below the page, whose first frame is the key:

| the page sends                                   | it gets                                                        |
|--------------------------------------------------|----------------------------------------------------------------|
| `{"key": "..."}`                                 | `welcome`, then `now` every second; or 4401, 4403, 4429        |
| `{"watch": "channels" or "users", "of": "room."}`| `channels`, `users`: the largest 100 with that prefix          |
| `{"watch": "channel", "of": "room.1"}`           | `channel`: its first 100 connections                           |
| `{"watch": "config"}`                            | `config`, once                                                 |
| `{"watch": ""}`                                  | no more of that                                                |

What is watched comes again every few seconds, the less often the longer it takes to find out: never more than 2 % of
the server's time for each page.
"""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from itertools import islice
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from .. import __version__
from .._core import CHANNEL_KIND, USER_KIND, WebSocket
from ..access.keys import Key
from ..answers import Answer, facts, refusal
from ..errors import ConfigurationError, Reject
from ..listener import Listener
from ..routing import Template
from .api import API, plain
from .app import Web, WebRequest
from .pulse import Pulse, Sample, memory

__all__ = ["AdminSettings", "StatusPage", "add_to"]

HTML = files("fastws.web").joinpath("admin.html").read_bytes()
SOCKET = "/ws"  # below the page's path
SILENCE = 10.0  # seconds until whoever has not said a key is closed
MOST_SHOWN = 100  # entries of a list
SHARE = 0.02  # of the time, at most, for looking at what a page shows
AGAIN = 2.0  # seconds until it is looked at again, at least
MAX_FRAME = 4096  # bytes from a page
MAX_RATE = 20  # frames a second from a page
RESTARTED = 1012, "the keys have changed"
HOST = re.compile(r"[A-Za-z0-9.\-]+(?::[0-9]+)?|\[[0-9A-Fa-f:]+\](?::[0-9]+)?")


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``[admin]``: the status page, which is off without it."""

    path: Annotated[str, Meta(description="where the status page is; its key is one of [[api.keys]] that may read")] = (
        "/admin"
    )
    readonly: Annotated[bool, Meta(description="whether it only shows, and neither sends nor closes anything")] = False

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.path.endswith("/") or Template(self.path).names:
            raise ConfigurationError(f"path={self.path!r}: it needs a path such as '/admin'")


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first frame."""

    key: str


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Any later one: what is on the screen."""

    watch: Literal["", "channels", "users", "channel", "config"]
    of: str = ""


def add_to(
    web: Web, settings: AdminSettings, *, api: API, configuration: Callable[[], Iterable[Any]] = tuple
) -> "StatusPage":
    """Serve the page beside an API, on the API's own port if it has one; returns it.

    ``web`` is the server's ``http``. ``configuration`` returns entries with a ``name``, a ``value`` and a ``source``.
    """
    page = StatusPage(settings, api, configuration)
    api.has_readonly_page = settings.readonly
    assert api.web is not None
    api.web.add("GET", settings.path, page.html)
    # A page may connect whatever its origin: it is the key that lets it in, which no browser sends by itself.
    server = api.hub.server if api.server is None else api.server
    page.pulse.apart = server.endpoint(
        settings.path + SOCKET,
        page,
        origins=None,
        auth=None,
        sessions=None,
        subprotocols=(),
        max_message_size=MAX_FRAME,
        max_message_rate=MAX_RATE,
    )
    web.run_with(page)
    return page


class Page:
    """One open page, whose key was right."""

    def __init__(self, key: Key, generation: int) -> None:
        self.key = key
        self.generation = generation  # of the keys, when it was looked up
        self.watch = Watch("")
        self.due = 0.0  # when to look at that again


class StatusPage(Listener):
    """The page's listener, and its HTML. ``pages`` are those that are open."""

    def __init__(self, settings: AdminSettings, api: API, configuration: Callable[[], Iterable[Any]] = tuple) -> None:
        self.pages: dict[WebSocket, Page] = {}
        self.pulse = Pulse(api.hub, self._tell)
        self._settings = settings
        self._api = api
        self._configuration = configuration
        self._started = time.time()
        self._waiting: dict[WebSocket, asyncio.TimerHandle] = {}  # those that have not said a key
        self._etag = f'"{hashlib.sha256(HTML).hexdigest()[:32]}"'
        self._policy = policy(HTML)

    async def __aenter__(self) -> Self:
        self._started = time.time()
        self.pulse.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.pulse.stop()

    def html(self, request: WebRequest) -> Answer:
        """Returns the page; it holds no secret, so anybody may have it."""
        host = request.headers.get("host", "")
        # Not every browser takes 'self' for a WebSocket's as well.
        sockets = f" ws://{host} wss://{host}" if HOST.fullmatch(host) else ""
        headers = {
            "Content-Security-Policy": f"{self._policy}; connect-src 'self'{sockets}",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cache-Control": "no-cache",
            "ETag": self._etag,
        }
        if request.headers.get("if-none-match") == self._etag:
            return Answer(304, b"", headers)
        return Answer(200, HTML, {**headers, "Content-Type": "text/html; charset=utf-8"})

    # -- a page comes and goes

    def on_open(self, ws: WebSocket) -> None:
        """Nothing is sent before the key."""
        loop = asyncio.get_running_loop()
        self._waiting[ws] = loop.call_later(SILENCE, ws.close, 4408, "no key came")

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        """It is not told any more."""
        self.pages.pop(ws, None)
        self._is_no_more_waited_for(ws)
        self.pulse.is_watched = bool(self.pages)

    def _is_no_more_waited_for(self, ws: WebSocket) -> None:
        timer = self._waiting.pop(ws, None)
        if timer is not None:
            timer.cancel()

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """The key, or what is on the screen."""
        page = self.pages.get(ws)
        try:
            if page is None:
                self._enter(ws, msgspec.json.decode(message, type=Hello).key)
                return
            page.watch = msgspec.json.decode(message, type=Watch)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            ws.close(4400, "this is not a frame of the status page")
            return
        now = time.perf_counter()
        if page.watch.watch == "config":
            self._send_configuration(ws)
            page.watch = Watch("")
        elif page.due <= now:  # else with the next second
            self._look(ws, page, now)

    def _enter(self, ws: WebSocket, key: str) -> None:
        if not ws.is_open:
            return
        try:
            found = self._api.keys.check({"x-api-key": key}, "read", ws.remote_address)
        except Reject as reject:
            about = facts(ws.request._raw_path, ws.headers)
            answer = refusal(ws.remote_address, reject.status, reject.reason, about=about)
            ws.close(4000 + reject.status, answer.as_reason())
            return
        self._is_no_more_waited_for(ws)
        self.pages[ws] = Page(found, self._api.keys.generation)
        self.pulse.is_watched = True
        ws.send(
            {
                "type": "welcome",
                "version": __version__,
                "started": self._started,
                "path": self._settings.path,
                "api": self._api.path,
                "key": found.name,
                "allow": ["read"] if self._settings.readonly else sorted(found.allow),
                "readonly": self._settings.readonly,
                "history": [list(each) for each in self.pulse.samples],
            }
        )

    # -- what a page is told

    def _tell(self, sample: Sample) -> None:
        """Every second: the same for all pages, and to each what is due of what it shows."""
        if not self.pages:
            return
        generation = self._api.keys.generation
        for ws, page in list(self.pages.items()):
            if page.generation != generation:
                ws.close(*RESTARTED)  # it comes back, if its key is still one
        assert self.pulse.apart is not None
        now = {
            "type": "now",
            **sample._asdict(),
            "pages": len(self.pages),
            "memory": memory(),
            "refused": self._api.refusals.total,
            "endpoints": self.pulse.endpoints,
        }
        self.pulse.apart.send(list(self.pages), now)
        begin = time.perf_counter()
        for ws, page in list(self.pages.items()):
            if page.watch.watch and page.due <= begin:
                self._look(ws, page, begin)

    def _look(self, ws: WebSocket, page: Page, begin: float) -> None:
        """Send what a page watches, and decide when to look at it again."""
        watch, of = page.watch.watch, page.watch.of
        if watch == "channels":
            found = self._largest(CHANNEL_KIND, of, None if page.key.channels == ("*",) else page.key.covers)
            ws.send({"type": watch, "of": of, **found})
        elif watch == "users":
            ws.send({"type": watch, "of": of, **self._largest(USER_KIND, of)})
        elif watch == "channel" and page.key.covers(of):
            members = [ws for manager in self._api.hub.managers for ws in manager.subscribers(of)]
            entries = [_entry(member) for member in islice(members, MOST_SHOWN)]
            ws.send({"type": watch, "of": of, "connections": entries, "total": len(members)})
        now = time.perf_counter()
        page.due = now + max(AGAIN, (now - begin) / SHARE)

    def _largest(
        self, kind: int, prefix: str, is_wanted: Callable[[str], bool] | None = None
    ) -> dict[str, Sequence[Any] | int]:
        found, total = self._api.hub.largest(kind, prefix, MOST_SHOWN, is_wanted)
        return {"entries": [[plain(name), count] for name, count in found], "total": total}

    def _send_configuration(self, ws: WebSocket) -> None:
        entries = [[entry.name, entry.value, entry.source] for entry in self._configuration()]
        ws.send({"type": "config", "entries": entries})


def _entry(ws: WebSocket) -> dict[str, Any]:
    user = None if ws.user is None else plain(ws.user)
    address = ws.remote_address[0]
    return {"id": ws.id, "user": user, "remote_address": address, "since": ws.since, "pending": ws.pending}


def policy(html: bytes) -> str:
    """Returns a Content-Security-Policy by which the page's own script and style are used, and nothing else is."""
    text = html.decode()
    script, style = (
        base64.b64encode(hashlib.sha256(re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[0].encode()).digest())
        for tag in ("script", "style")
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script.decode()}'; style-src 'sha256-{style.decode()}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
