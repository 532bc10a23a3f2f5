"""An ASGI application of one page: the chat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

# Everything the page needs is in its one file, so it may load nothing else. `connect-src 'self'` alone would
# do, but not every browser counts a WebSocket to the same host as that.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HTML = files("fastws.demo").joinpath("chat.html").read_bytes()
HTML_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache"),
]
TEXT_HEADERS = [(b"content-type", b"text/plain; charset=utf-8")]


async def page(scope: Event, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await respond(scope, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """There is nothing to set up; but who is asked must answer."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def respond(scope: Event, send: Send) -> None:
    if scope["path"] != "/":
        status, headers, body = 404, TEXT_HEADERS, b"not found\n"
    elif scope["method"] not in ("GET", "HEAD"):
        status, headers, body = 405, [*TEXT_HEADERS, (b"allow", b"GET, HEAD")], b"GET or HEAD\n"
    else:
        status, headers, body = 200, HTML_HEADERS, HTML
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
