"""What a backend decides, and how it says no."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import FastWSError

__all__ = ["STATUSES", "Connect", "Refused"]

#: The HTTP status that says the same as an error's code; any other is 403.
STATUSES = {
    "bad_channel": 400,
    "unauthenticated": 401,
    "unknown_channel": 404,
    "conflict": 409,
    "too_large": 413,
    "too_fast": 429,
    "internal": 500,
    "too_many": 503,
    "unavailable": 503,
}


class Connect(NamedTuple):
    """A connection is let in, and as what. It stays in the connection's data, as ``ws.data["connect"]``."""

    user: str | None = None
    data: Any = None
    """The backend's own, which comes back to it with each question about this connection."""
    channels: Sequence[str] = ()
    """To be in from the start, whatever the rules say."""
    welcome: Any = None
    """For the client, in its `welcome`."""
    expires: float | None = None
    """Unix time in seconds when this is over."""
    renew: bool = False
    """Whether to ask again then; else the connection is closed with 4001."""
    allow: Mapping[str, Sequence[str]] | None = None
    """Globs of channels by ``"subscribe"`` and ``"publish"``, which count as a token's claims do."""


class Refused(FastWSError):
    """A frame is answered with an `error`, and nothing was done."""

    def __init__(self, code: str, message: str, retry: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry
