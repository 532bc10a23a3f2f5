"""`fastws serve`: a server put together from settings alone."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .access.keys import Keys
from .access.rules import ChannelRule, Rules
from .access.tokens import AuthSettings, Tokens
from .errors import ConfigurationError
from .hub import Hub
from .server import Server
from .v1.gate import Backend, Gate
from .v1.listener import PROTOCOL, ChannelListener
from .v1.raw import RawListener, RawSettings
from .v1.settings import V1Settings
from .web.admin import AdminSettings
from .web.admin import add_to as add_admin
from .web.api import ApiSettings
from .web.api import add_to as add_api
from .web.app import Web
from .web.health import add_to as add_health
from .web.script import add_to as add_script

if TYPE_CHECKING:
    from .command.described import Entry
    from .hooks.listener import Hooks
    from .hooks.settings import HookSettings
    from .pusher.settings import PusherSettings
    from .web.metrics import MetricsSettings

__all__ = ["PATHS", "StandaloneSettings", "create_server", "reconfigure"]

BLINK = 5.0  # seconds without a connection that a backend is not told of: most clients are back by then
PATHS = ["/ws", "/ws/{room}"]


class StandaloneSettings(Protocol):
    """What `create_server` takes: ``options`` of a Server by name, and the sections, None where they are not there."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of a Server."""

    @property
    def anonymous(self) -> bool:
        """Whether connections without a user are accepted."""

    @property
    def channels(self) -> Iterable[ChannelRule]:
        """The rules; without any, nothing is allowed."""

    @property
    def auth(self) -> AuthSettings | None:
        """How tokens are verified."""

    @property
    def api(self) -> ApiSettings | None:
        """Where the HTTP API is, and who may call it."""

    @property
    def client_path(self) -> str:
        """Where the client for browsers is; "" where it is not."""

    @property
    def hooks(self) -> "HookSettings | None":
        """The backend that decides and is told."""

    @property
    def ready_needs_hooks(self) -> bool:
        """Whether `/readyz` is 503 while the backend cannot be reached."""

    @property
    def metrics(self) -> "MetricsSettings | None":
        """Where the metrics are, and for whom."""

    @property
    def admin(self) -> AdminSettings | None:
        """Where the status page is."""

    @property
    def v1(self) -> V1Settings | None:
        """Limits of the clients of fastws.v1; None: the defaults."""

    @property
    def raw(self) -> RawSettings | None:
        """Where plain sockets are."""

    @property
    def pusher(self) -> "PusherSettings | None":
        """The application whose clients and backend speak Pusher's protocol."""


def create_server(settings: StandaloneSettings, *, offline: bool = False) -> Server:
    """Returns a server, not started yet; raises ConfigurationError for what cannot work.

    fastws.v1 is at ``/ws`` and ``/ws/{room}``, plain sockets where ``[raw]`` says; the same rules and tokens hold for
    both, and what is published at one reaches the other. Fetches the keys of ``jwks_url``, but ``offline``, which is
    for a look at whether all fits.
    """
    options = dict(settings.options)
    if settings.hooks is not None and "offline" in settings.hooks.tell:
        options.setdefault("offline_after", BLINK)
    server = Server(**options)
    tokens = None if settings.auth is None else Tokens(settings.auth, offline=offline)
    rules = rules_of(settings)
    hooks = None if settings.hooks is None else hooks_of(settings.hooks, server)
    backend: Backend | None = hooks

    v1 = settings.v1 or V1Settings()
    listener = ChannelListener(
        rules,
        backend=backend,
        anonymous=settings.anonymous,
        max_channels=v1.max_channels,
        heartbeat=v1.heartbeat,
        hello_timeout=server.options.handshake_timeout,
    )
    subprotocols = [PROTOCOL, *server.options.subprotocols]
    # A fresh token is a frame of the protocol there; with plain sockets it is looked for in what is sent.
    auth = None if tokens is None else tokens.auth(refresh=False)
    # What channels keep is settled at the start; plain sockets get what is said now.
    logs = rules.keep if rules.keep_anything else None
    server.endpoint(PATHS, listener, subprotocols=subprotocols, auth=auth, logs=logs)
    if settings.raw is not None:
        raw = RawListener(rules, backend=backend, anonymous=settings.anonymous)
        server.endpoint(settings.raw.path, raw, auth=None if tokens is None else tokens.auth())

    hub, web = Hub(server), Web()
    pusher = None
    if settings.pusher is not None:
        from .pusher.start import add_to as add_pusher  # a wing that few need

        pusher = add_pusher(server, web, settings.pusher)
    server.state.keys = Keys(() if settings.api is None else settings.api.keys)
    api = None if settings.api is None else add_api(web, hub, settings.api, keys=server.state.keys)
    if hooks is not None:
        hooks.add_to(web, hub)
    if settings.client_path:
        add_script(web, settings.client_path)
    if settings.ready_needs_hooks and hooks is None:
        raise ConfigurationError("ready_needs_hooks=True needs [hooks]: configure them, or leave it out")
    add_health(server, hooks.figures if hooks is not None and settings.ready_needs_hooks else None)
    if settings.metrics is not None:
        from .web.metrics import add_to as add_metrics  # needs the `metrics` extra

        metrics = add_metrics(web, server, settings.metrics, keys=server.state.keys, hooks=hooks)
        if api is not None and api.web is not web:
            metrics.watch(api.web)
        if pusher is not None:
            metrics.webhooks = pusher.webhooks
    if settings.admin is not None:
        if api is None or not server.state.keys:
            raise ConfigurationError("[admin] asks for a key, and there is none: add [[api.keys]] that may read")
        server.state.configuration = configuration_of(settings)
        add_admin(web, settings.admin, api=api, configuration=lambda: server.state.configuration)
    server.reconfigure(http=web)
    return server


def reconfigure(server: Server, settings: StandaloneSettings) -> None:
    """Have a server of `create_server`, which may run, go by other ``[[channels]]`` and ``[[api.keys]]``.

    What is subscribed stays. Raises ConfigurationError for what cannot work, and then everything is as it was.
    """
    rules = rules_of(settings)
    gates = [manager.listener for manager in server.endpoints.values() if isinstance(manager.listener, Gate)]
    for gate in gates:
        rules.check_backend(None if gate.backend is None else gate.backend.asks)
    server.state.keys.replace(() if settings.api is None else settings.api.keys)
    for gate in gates:
        gate.rules = rules
    if settings.admin is not None and hasattr(server.state, "configuration"):
        server.state.configuration = configuration_of(settings, server.state.configuration)


def configuration_of(settings: StandaloneSettings, before: "Iterable[Entry]" = ()) -> "list[Entry]":
    """Returns the values in force, for people to read; none of settings that do not know where they came from."""
    from .command.described import entries  # which looks into the source of every section
    from .command.settings import Settings

    return entries(settings, before) if isinstance(settings, Settings) else []


def hooks_of(settings: "HookSettings", server: Server) -> "Hooks":
    """Returns the backend of ``[hooks]``; raises ConfigurationError where the package that asks it is missing."""
    try:
        from .hooks.listener import Hooks
        from .hooks.origins import is_of_same_host
    except ImportError as error:
        raise ConfigurationError(f"[hooks] needs {error.name}: pip install 'fastws-server[hooks]'") from None
    hooks = Hooks(settings)
    # Without `origins` a page of any site may connect, but only one of this host in the visitor's name.
    hooks.is_trusted = lambda request: server.options.origins is not None or is_of_same_host(request.headers)
    return hooks


def rules_of(settings: StandaloneSettings) -> Rules:
    """Returns the rules of ``[[channels]]``, which look into a token's claims as ``[auth]`` says."""
    auth = settings.auth
    if auth is None:
        return Rules(settings.channels)
    return Rules(settings.channels, channels_claim=auth.channels_claim, publish_claim=auth.publish_claim)
