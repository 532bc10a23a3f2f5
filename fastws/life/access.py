"""The access log: a line for each handshake and each close, on the logger ``fastws.access``.

It is off, and costs a look at a level: ``logging.getLogger("fastws.access").setLevel("INFO")`` has it written.
"""

import logging
import time
from typing import Any

from .._core import Request, WebSocket
from ..proxies import request_id

__all__ = ["accepted", "closed", "refused"]

logger = logging.getLogger("fastws.access")
logger.setLevel(logging.WARNING)

MOST_SHOWN = 200  # characters of what strangers send
_since: dict[WebSocket, float] = {}  # on time's clock: of connections that were accepted while this was on


def accepted(ws: WebSocket, endpoint: str) -> None:
    """A handshake has succeeded."""
    if logger.isEnabledFor(logging.INFO):
        _since[ws] = time.monotonic()
        _log(ws.request, "%d %s", 101, _agent(ws.request), endpoint=endpoint, status=101)


def refused(request: Request, status: int, endpoint: str | None) -> None:
    """A request was refused."""
    if logger.isEnabledFor(logging.INFO):
        _log(request, "%d %s", status, _agent(request), endpoint=endpoint, status=status)


def closed(ws: WebSocket, endpoint: str, code: int, messages_in: int, messages_out: int) -> None:
    """A connection is over; so many messages came from it, and so many were queued for it."""
    since = _since.pop(ws, None) if _since else None
    if logger.isEnabledFor(logging.INFO):
        extra: dict[str, Any] = {"endpoint": endpoint, "code": code}
        extra |= {"messages_in": messages_in, "messages_out": messages_out}
        counts = f"in {messages_in:,}, out {messages_out:,}"
        if since is None:
            _log(ws.request, "closed %d, %s", code, counts, **extra)
        else:
            seconds = time.monotonic() - since
            _log(ws.request, "closed %d after %d s, %s", code, seconds, counts, **extra, seconds=seconds)


def _log(request: Request, message: str, *values: Any, **extra: Any) -> None:
    """A line that begins with who it is about; the query, which may hold a token, is left out."""
    host, path = request.remote_address[0], _shown(request._raw_path)
    user = "-" if request.user is None else _shown(str(request.user))
    extra |= {"user": request.user, "remote_address": request.remote_address, "path": path}
    given = request_id(request.headers) if request._from_proxy else None
    if given is not None:
        extra["request_id"] = given
    logger.info(f"%s %s %s {message}", user, host or "-", path or "-", *values, extra=extra)


def _agent(request: Request) -> str:
    agent = request.headers.get("user-agent")
    return '"-"' if agent is None else f'"{_shown(agent)}"'


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() and c != '"' else "?" for c in text[:MOST_SHOWN])
