"""WebSockets of an ASGI application on the server's engine, and channels for it ([docs/asgi.md])."""

from .conversation import ClientDisconnected
from .rooms import Channels, channels

__all__ = ["Channels", "ClientDisconnected", "channels"]
