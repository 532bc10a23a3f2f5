"""fastws: a WebSocket server for Python whose fan-out runs at the speed of the kernel."""

from importlib.metadata import PackageNotFoundError, version

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

try:
    __version__ = version("fastws-server")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
