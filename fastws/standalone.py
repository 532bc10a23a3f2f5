"""`fastws serve`: a server put together from settings alone."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .access.rules import ChannelRule, Rules
from .access.tokens import AuthSettings, Tokens
from .hub import Hub
from .server import Server
from .v1.gate import Backend
from .v1.listener import PROTOCOL, ChannelListener
from .v1.raw import RawListener, RawSettings

__all__ = ["PATHS", "StandaloneSettings", "create_server"]

PATHS = ["/ws", "/ws/{room}"]


class StandaloneSettings(Protocol):
    """What `create_server` takes: ``options`` of a Server by name, and the sections, None where they are not there."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of a Server."""

    @property
    def anonymous(self) -> bool:
        """Whether those may connect who have no user."""

    @property
    def channels(self) -> Iterable[ChannelRule]:
        """The rules; without any, nothing is allowed."""

    @property
    def auth(self) -> AuthSettings | None:
        """How tokens are verified."""

    @property
    def raw(self) -> RawSettings | None:
        """Where plain sockets are."""


def create_server(settings: StandaloneSettings) -> Server:
    """Returns a server, not started yet; raises ConfigurationError for what cannot work.

    fastws.v1 is at ``/ws`` and ``/ws/{room}``, plain sockets where ``[raw]`` says; the same rules and tokens hold for
    both, and what is published at one reaches the other. Fetches the keys of ``jwks_url``.
    """
    server = Server(**settings.options)
    claims = {}
    tokens = None
    if settings.auth is not None:
        tokens = Tokens(settings.auth)
        claims = {"channels_claim": settings.auth.channels_claim, "publish_claim": settings.auth.publish_claim}
    rules = Rules(settings.channels, **claims)
    backend: Backend | None = None  # [hooks]

    listener = ChannelListener(
        rules, backend=backend, anonymous=settings.anonymous, hello_timeout=server.options.handshake_timeout
    )
    subprotocols = [PROTOCOL, *server.options.subprotocols]
    # A fresh token is a frame of the protocol there; with plain sockets it is looked for in what is sent.
    auth = None if tokens is None else tokens.auth(refresh=False)
    server.endpoint(PATHS, listener, subprotocols=subprotocols, auth=auth)
    if settings.raw is not None:
        raw = RawListener(rules, backend=backend, anonymous=settings.anonymous)
        server.endpoint(settings.raw.path, raw, auth=None if tokens is None else tokens.auth())

    hub = Hub(server)
    # HTTP: an application of fastws.web gets `hub`, and the routes of
    # [api]
    # [metrics]
    # [admin]
    # /fastws.js
    # and is the server's by server.reconfigure(http=...).
    del hub
    return server
