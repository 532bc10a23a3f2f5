"""The server's own answers to HTTP requests, as HTTP/1.1 bytes or as ASGI messages."""

import functools
import http
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from ._core import Headers, field_lines
from .errors import FastWSError

__all__ = ["RETRY_HEADERS", "Answer", "Answered", "facts", "refusal", "with_own_answers"]

logger = logging.getLogger("fastws.server")

MAX_REASON_BYTES = 123
RETRY_HEADERS = {"Retry-After": "5"}  # seconds
NO_STORE_HEADERS = {"Cache-Control": "no-store"}
BODILESS = (204, 304)
MOST_SHOWN = 500  # characters of a fact that a peer has chosen


@dataclass(frozen=True)
class Answer:
    """A status, what is said, and further header fields (name to value, or to a list of values).

    A mapping is sent as JSON, ``str`` as plain text, ``bytes`` as they are; a ``Content-Type`` among the header fields
    says what they are instead.
    """

    status: int
    content: Mapping[str, Any] | str | bytes
    headers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def readiness(cls, is_ready: bool) -> Self:
        """Returns the answer for a load balancer: 200 or 503."""
        return cls(200 if is_ready else 503, {"ready": is_ready}, NO_STORE_HEADERS)

    def as_http(self, method: str | None = None) -> bytes:
        """Returns the whole response, after which the connection closes; a response to HEAD has no body.

        Raises ValueError for a header field that cannot be sent.
        """
        fields, body = self.rendered({"Connection": "close"})
        lines = [f"HTTP/1.1 {self.status} {phrase(self.status)}", *field_lines(fields)]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head if method == "HEAD" else head + body

    def as_reason(self) -> str:
        """Returns a refusal's message and id, cut to what a Close frame can carry (RFC 6455 5.5)."""
        assert isinstance(self.content, Mapping)
        error = self.content["error"]
        end = f" ({error['request_id']})"
        message: bytes = error["message"].encode("utf-8", "replace")
        return message[: MAX_REASON_BYTES - len(end)].decode("utf-8", "ignore") + end

    async def as_asgi(self, send: Callable[[Any], Any]) -> None:
        """Send it as an ASGI application does; for HEAD the HTTP server omits the body."""
        fields, body = self.rendered({})
        headers = [tuple(part.encode("latin-1") for part in line.split(": ", 1)) for line in field_lines(fields)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def as_response(self, fields_before: bytes) -> bytes:
        """Returns the whole response, after which the connection stays; ``fields_before`` are lines of its header."""
        fields, body = self.rendered({})
        lines = field_lines(fields)
        head = f"HTTP/1.1 {self.status} {phrase(self.status)}\r\n".encode("latin-1") + fields_before
        return head + ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    def rendered(self, headers: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Returns all header fields, those given among them, and the body."""
        if self.status in BODILESS:
            return {**headers, **self.headers}, b""
        content = self.content
        if isinstance(content, bytes):
            body, kind = content, "application/octet-stream"
        elif isinstance(content, str):
            body, kind = content.encode(), "text/plain; charset=utf-8"
        else:
            body, kind = orjson.dumps(content), "application/json"
        return {"Content-Type": kind, "Content-Length": str(len(body)), **headers, **self.headers}, body


class Answered(FastWSError):
    """Answers a handshake with a whole answer instead of a 101, where a `Reject` has a status and a sentence."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"answered with {answer.status}")
        self.answer = answer


@functools.cache
def phrase(status: int) -> str:
    """Returns the name of a status; a listener may refuse with a status that has none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def facts(path: str, headers: Headers) -> dict[str, str | None]:
    """Returns what the log has to say of a refused request, beside its id; never its query, which may hold a token."""
    return {"path": path[:MOST_SHOWN], "origin": _cut(headers, "origin"), "user_agent": _cut(headers, "user-agent")}


def _cut(headers: Headers, name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value[:MOST_SHOWN]


def refusal(
    peer: tuple[str, int] | None,
    status: int,
    message: str,
    headers: Mapping[str, Any] | None = None,
    error: BaseException | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    field: str | None = None,
    request_id: str | None = None,
) -> Answer:
    """Returns an answer that says why a request is refused, and logs it with the same request id.

    ``about`` are further `facts` for the log; ``field`` is where in the body the fault is; ``request_id`` is that of
    a trusted proxy.
    """
    request_id = request_id or os.urandom(8).hex()
    extra = {**(about or {}), "request_id": request_id, "status": status, "remote_address": peer}
    level = logging.WARNING if error is None else logging.ERROR
    logger.log(level, "request %s refused: %d %r", request_id, status, message, exc_info=error, extra=extra)
    content = {"code": status, "message": message, "request_id": request_id}
    if field is not None:
        content["field"] = field
    return Answer(status, {"error": content}, headers or {})


def with_own_answers(
    app: Callable[..., Any],
    find: Callable[[str, str], Answer | None],
    instead_of_404: Callable[[str, str, tuple[str, int] | None], Answer | None],
) -> Callable[..., Any]:
    """Returns an ASGI application that gives the server's own answers before those of ``app``, and instead of its 404s.

    ``find`` gets a method and a path, ``instead_of_404`` a method, the raw path and the peer; if they return None,
    ``app`` answers. An application with an attribute ``instead_of_404`` is given it, to ask before it answers 404.
    """
    if hasattr(app, "instead_of_404"):
        app.instead_of_404 = instead_of_404

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        method, peer = scope["method"], scope["client"]
        answer = find(method, scope["path"])
        if answer is not None:
            await answer.as_asgi(send)
            return
        replaced = False

        async def send_unless_404(message: Any) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 404:
                answer = instead_of_404(method, scope["raw_path"].decode("latin-1"), peer)
                if answer is not None:
                    replaced = True
                    await answer.as_asgi(send)
            if not replaced:
                await send(message)

        await app(scope, receive, send_unless_404)

    if hasattr(app, "at_once"):
        serve.at_once = app.at_once  # type: ignore[attr-defined]
    return serve
