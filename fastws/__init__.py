"""fastws: a WebSocket server for Python whose fan-out runs at the speed of the kernel."""

from importlib.metadata import PackageNotFoundError, version

from ._core import Headers, Request, WebSocket
from .errors import ConfigurationError, FastWSError, ProtocolError, Reject
from .listener import Listener
from .manager import ConnectionManager
from .server import Server

__all__ = [
    "ConfigurationError",
    "ConnectionManager",
    "FastWSError",
    "Headers",
    "Listener",
    "ProtocolError",
    "Reject",
    "Request",
    "Server",
    "WebSocket",
]

try:
    __version__ = version("fastws-server")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
