"""fastws: a WebSocket server for Python whose fan-out runs at the speed of the kernel."""

from ._core import Headers, Request, WebSocket
from .auth import JWTAuth
from .errors import ConfigurationError, FastWSError, ProtocolError, Reject
from .listener import Listener
from .manager import ConnectionManager
from .presence import Presence
from .server import Server
from .sessions import Session, SignedCookieSessions, StoreSessions

__all__ = [
    "ConfigurationError",
    "ConnectionManager",
    "FastWSError",
    "Headers",
    "JWTAuth",
    "Listener",
    "Presence",
    "ProtocolError",
    "Reject",
    "Request",
    "Server",
    "Session",
    "SignedCookieSessions",
    "StoreSessions",
    "WebSocket",
]

__version__ = "0.1.0"  # as in pyproject.toml; importlib.metadata, which knows it, is slow to import
