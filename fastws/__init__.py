"""fastws: a WebSocket server for Python whose fan-out runs at the speed of the kernel."""

from ._core import Headers, Request, WebSocket
from .auth import JWTAuth
from .errors import BackplaneError, ConfigurationError, FastWSError, ProtocolError, Reject
from .listener import Listener
from .logs import History, Latest, Position
from .manager import ConnectionManager
from .presence import Presence
from .server import Server
from .sessions import Session, SignedCookieSessions, StoreSessions

__all__ = [
    "BackplaneError",
    "ConfigurationError",
    "ConnectionManager",
    "FastWSError",
    "Headers",
    "History",
    "JWTAuth",
    "Latest",
    "Listener",
    "Position",
    "Presence",
    "ProtocolError",
    "Reject",
    "Request",
    "Server",
    "Session",
    "SignedCookieSessions",
    "StoreSessions",
    "WebSocket",
    "selftest",
]

__version__ = "0.1.0"  # as in pyproject.toml; importlib.metadata, which knows it, is slow to import


def selftest() -> str:
    """Try an echo, a broadcast, compression and TLS on 127.0.0.1, in a fraction of a second.

    For whoever has installed or built fastws. Returns in one sentence what works, and raises FastWSError with the name
    of what does not. It runs in a thread of its own, and blocks until that has ended.
    """
    from ._selftest import run

    return run()
