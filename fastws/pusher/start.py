"""Puts an application of Pusher's on a server."""

from typing import Any

from ..answers import NO_STORE_HEADERS, Answer
from ..manager import ConnectionManager
from ..server import Server
from ..web.app import Web
from .api import API
from .cache import Cache
from .listener import PusherListener, Tell
from .settings import PusherSettings
from .signing import Application

__all__ = ["add_to"]

PATH = "/app/{key}"
UP = "/up"  # where Reverb says that it is there
MARGIN = 16 * 1024  # bytes of a frame beside the data of its event


def add_to(server: Server, web: Web, settings: PusherSettings) -> PusherListener:
    """Serve clients of Pusher's at ``/app/{key}``, and its HTTP API by ``web``, which is to be the server's ``http``.

    Needs to be called before the server starts. Raises ConfigurationError for what cannot work.
    """
    application = Application(settings.key, settings.signing_key())
    tell: Tell = _nobody
    webhooks = None
    if settings.webhook_url:
        from .webhooks import Webhooks  # needs the `hooks` extra

        webhooks = Webhooks(settings, application)
        web.run_with(webhooks)
        tell = webhooks.tell
    cache = Cache(server.shared(f"pusher:{settings.id}:cache"))
    listener = PusherListener(settings, application, cache, tell)
    listener.webhooks = webhooks
    manager = server.endpoint(
        PATH,
        listener,
        auth=None,
        sessions=None,
        logs=None,
        idle_timeout=0,  # silence is the protocol's own business
        max_message_size=settings.max_event_size + MARGIN,
    )
    API(listener).add_to(web)
    server.pages[UP] = lambda: Answer(200, {"health": "OK"}, NO_STORE_HEADERS)
    web.run_with(Running(listener, manager))
    return listener


class Running:
    """From the start of a server to its stop."""

    def __init__(self, listener: PusherListener, manager: ConnectionManager) -> None:
        self._listener = listener
        self._manager = manager

    async def __aenter__(self) -> None:
        self._listener.begin(self._manager)

    async def __aexit__(self, *exc_info: object) -> None:
        self._listener.cache.stop()


def _nobody(name: str, channel: str, **more: Any) -> None:
    """Nobody is told."""
