"""The server's own answers to HTTP requests: refusals and readiness, as HTTP/1.1 bytes or as ASGI messages."""

import http
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from ._core import field_lines

__all__ = ["RETRY_HEADERS", "Answer", "refusal", "with_own_answers"]

logger = logging.getLogger("fastws.server")

RETRY_HEADERS = {"Retry-After": "5"}  # seconds
NO_STORE_HEADERS = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class Answer:
    """A status, a JSON object, and further header fields (name to value, or to a list of values)."""

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def readiness(cls, is_ready: bool) -> Self:
        """Returns the answer for a load balancer: 200 or 503."""
        return cls(200 if is_ready else 503, {"ready": is_ready}, NO_STORE_HEADERS)

    def as_http(self, method: str | None = None) -> bytes:
        """Returns the whole response, after which the connection closes; a response to HEAD has no body.

        Raises ValueError for a header field that cannot be sent.
        """
        fields, body = self._render({"Connection": "close"})
        lines = [f"HTTP/1.1 {self.status} {phrase(self.status)}", *field_lines(fields)]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head if method == "HEAD" else head + body

    async def as_asgi(self, send: Callable[[Any], Any]) -> None:
        """Send it as an ASGI application does; for HEAD the HTTP server omits the body."""
        fields, body = self._render({})
        headers = [tuple(part.encode("latin-1") for part in line.split(": ", 1)) for line in field_lines(fields)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _render(self, headers: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        body = orjson.dumps(self.content)
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers, **self.headers}
        return fields, body


def phrase(status: int) -> str:
    """Returns the name of a status; a listener may refuse with a status that has none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def refusal(
    peer: tuple[str, int] | None,
    status: int,
    message: str,
    headers: Mapping[str, Any] | None = None,
    error: BaseException | None = None,
) -> Answer:
    """Returns an answer that says why a request is refused, and logs it with the same request id."""
    request_id = secrets.token_hex(8)
    extra = {"request_id": request_id, "status": status, "remote_address": peer}
    level = logging.WARNING if error is None else logging.ERROR
    logger.log(level, "request %s refused: %d %r", request_id, status, message, exc_info=error, extra=extra)
    content = {"error": {"code": status, "message": message, "request_id": request_id}}
    return Answer(status, content, headers or {})


def with_own_answers(
    app: Callable[..., Any],
    find: Callable[[str, str], Answer | None],
    instead_of_404: Callable[[str, str, tuple[str, int] | None], Answer | None],
) -> Callable[..., Any]:
    """Returns an ASGI application that gives the server's own answers before those of ``app``, and instead of its 404s.

    ``find`` gets a method and a path, ``instead_of_404`` a method, the raw path and the peer; if they return None,
    ``app`` answers.
    """

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

    return serve
