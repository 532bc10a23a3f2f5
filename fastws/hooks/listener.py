"""Hooks, a backend over HTTP; and a listener that leaves everything to it."""

import logging
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol, Self, get_args

from .._core import Request, WebSocket
from ..access.rules import ChannelRule, Rules
from ..answers import RETRY_HEADERS
from ..errors import ConfigurationError, Reject
from ..hub import Hub
from ..v1.decisions import Connect, Refused
from ..v1.gate import described
from ..v1.listener import ChannelListener
from .asking import Asker, Denied
from .origins import CREDENTIALS
from .posting import Figures, Poster, Unanswered, forwarded
from .settings import Ask, HookSettings
from .shapes import Answer, CallAnswer, ConnectAnswer, PublishAnswer, SubscribeAnswer, given
from .signing import signer
from .telling import Teller

__all__ = ["HookListener", "Hooks"]

logger = logging.getLogger("fastws.hooks")

AT_STOP = 5.0  # seconds that a stop waits for the backend

# What a client is told, by the status that the backend refused with; "refused" for all others.
CODES = {
    401: "unauthenticated",
    403: "forbidden",
    404: "unknown_channel",
    409: "conflict",
    413: "too_large",
    429: "too_fast",
}
SILENT = "the backend does not answer"


class Lifespan(Protocol):
    """What starts and ends with the server, a `fastws.web.app.Web`."""

    def run_with(self, context: AbstractAsyncContextManager[Any]) -> None:
        """Enter it at the start, leave it at the end."""


class Hooks:
    """Asks a backend over HTTP, and tells it. One serves all endpoints of a server, as ``backend=`` of their listeners.

    ``async with`` starts it, and closes it when all is delivered. ``figures`` counts for metrics. ``counts``, which may
    be replaced, gives the numbers of users and connections for the heartbeat. ``is_trusted``, which may be, too, says
    whether a request's page may act in a visitor's name: the backend gets no credentials from any other.
    """

    def __init__(self, settings: HookSettings) -> None:
        self.settings = settings
        self.counts: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.is_trusted: Callable[[Request], bool] = lambda request: True
        self._poster = Poster(settings.url, signer(settings.key()))
        self._asker = Asker(self._poster, settings)
        self._teller = Teller(self._poster, settings, lambda: self.counts())

    @property
    def figures(self) -> Figures:
        """What happened so far."""
        return self._poster.figures

    @property
    def pending(self) -> int:
        """How many asks and events wait."""
        return self._poster.figures.pending + self._teller.waiting

    def start(self) -> None:
        """Tell the backend that this process has started. Needs a running loop; else the first event does it."""
        if self.settings.tell:
            self._teller.start()

    async def close(self, seconds: float = AT_STOP) -> None:
        """Deliver what is to be told, within so many seconds, and close the connections to the backend.

        What comes later opens them again.
        """
        await self._teller.stop(seconds)
        await self._poster.close()

    def add_to(self, web: Lifespan, hub: Hub) -> None:
        """Start with the server, and close when it has stopped, everybody is gone and all is delivered."""
        self.counts = partial(count, hub)
        web.run_with(self)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # -- as a listener's backend

    def asks(self, event: str) -> bool:
        """Whether the backend decides on "connect", "subscribe", "publish" or "call"."""
        return event in self.settings.ask

    async def connect(self, request: Request, *, ws: WebSocket | None = None) -> Connect:
        """Returns who it is; raises Reject. With a ``ws``, whose time is over, it asks again."""
        again = {} if ws is None else {"renew": True}
        content = {"connection": self._connection(request, ws), **again}
        try:
            answer = await self._asker.ask("connect", content, ConnectAnswer, self._fields(request))
        except Denied as denied:
            raise Reject(denied.status, denied.message) from None
        except Unanswered:
            raise Reject(503, SILENT, headers=RETRY_HEADERS) from None
        return Connect(
            user=answer.user,
            data=answer.data,
            channels=answer.channels,
            welcome=answer.welcome,
            expires=answer.expires,
            renew=answer.renew,
            allow=None if answer.allow is None else given(answer.allow),
        )

    async def subscribe(self, ws: WebSocket, channel: str) -> Mapping[str, Any]:
        """Returns what the backend's answer says; raises Refused."""
        return await self._ask("subscribe", ws, SubscribeAnswer, channel=channel)

    async def publish(self, ws: WebSocket, channel: str, message: Any, to: Any) -> Mapping[str, Any]:
        """Returns what the backend's answer says; raises Refused."""
        return await self._ask("publish", ws, PublishAnswer, channel=channel, message=message, to=to)

    async def call(self, ws: WebSocket, method: str, params: Any) -> Mapping[str, Any]:
        """Returns what the backend's answer says; raises Refused."""
        return await self._ask("call", ws, CallAnswer, method=method, params=params)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Tell the backend of an event, where its ``type`` is one that the backend wants. Never waits."""
        if event["type"] in self.settings.tell:
            self._teller.tell(event)

    # -- how

    async def _ask(self, event: str, ws: WebSocket, answer: type[Answer], **more: Any) -> Mapping[str, Any]:
        content = {"connection": self._connection(ws.request, ws), **more}
        try:
            return given(await self._asker.ask(event, content, answer, self._fields(ws.request)))
        except Denied as denied:
            code = CODES.get(denied.status, "refused")
            raise Refused(code, denied.message, retry=code == "too_fast") from None
        except Unanswered:
            raise Refused("unavailable", SILENT, retry=True) from None

    def _names(self, request: Request) -> list[str]:
        """The client's header fields that the backend gets."""
        names = [name for name in self.settings.headers if name in request.headers]
        if self.is_trusted(request):
            return names
        held = [name for name in names if name.lower() in CREDENTIALS]
        if held:
            logger.warning(
                "the backend does not get the %s of a page of %r: add it to origins, if it is yours",
                " and ".join(held),
                request.headers.get("origin"),
            )
        return [name for name in names if name not in held]

    def _fields(self, request: Request) -> Mapping[str, str]:
        return forwarded(request.headers, self._names(request))

    def _connection(self, request: Request, ws: WebSocket | None) -> dict[str, Any]:
        """What an ask says of the connection that it is about."""
        headers = request.headers
        return {
            **described(request, ws),
            "headers": {name.lower(): headers[name] for name in self._names(request)},
        }


class HookListener(ChannelListener):
    """Serves fastws.v1 and leaves the decisions to a backend over HTTP; one for each endpoint.

        server.endpoint(["/ws", "/ws/{room}"], HookListener("http://127.0.0.1:8500/fastws.php"), offline_after=5)

    Takes the backend's URL, and the ``secret`` that signs unless the backend is on this machine; or HookSettings for
    anything more. With a URL alone the backend is asked about everything. Without ``rules`` it decides on all channels:
    what it is not asked about, its answer to connect has to allow (``allow``). Deliver what is left with
    ``await hooks.close()``; a stop of the server does that when the last connection is gone.
    """

    def __init__(
        self,
        backend: str | HookSettings,
        *,
        secret: str | None = None,
        rules: Rules | None = None,
        anonymous: bool = True,
        max_channels: int = 100,
        heartbeat: float = 20,
        hello_timeout: float = 10,
    ) -> None:
        if isinstance(backend, str):
            backend = HookSettings(url=backend, secret=secret, ask=get_args(Ask))
        elif secret is not None:
            raise ConfigurationError("secret is given beside HookSettings: set it there")
        self.hooks = Hooks(backend)
        self.hooks.counts = self._counts
        super().__init__(
            rules_for(backend) if rules is None else rules,
            backend=self.hooks,
            anonymous=anonymous,
            max_channels=max_channels,
            heartbeat=heartbeat,
            hello_timeout=hello_timeout,
        )
        self._is_stopping = False

    def _counts(self) -> tuple[int, int]:
        return (0, 0) if self._manager is None else count(self.hub)

    def on_handshake(self, request: Request) -> Any:
        """As a `ChannelListener`; the first one starts the hooks."""
        self.hooks.start()
        return super().on_handshake(request)

    def on_open(self, ws: WebSocket) -> Any:
        """As a `ChannelListener`."""
        self._is_stopping = False
        return super().on_open(ws)

    # The last handler that runs in a stop waits until all is told; which one that is depends on what the last
    # connection had.

    def on_shutdown(self) -> Any:
        """Deliver what is to be told, once everybody is gone."""
        self._is_stopping = True
        return self._close_after_last()

    def on_close(self, ws: WebSocket, code: int, reason: str) -> Any:
        """As a `ChannelListener`."""
        super().on_close(ws, code, reason)
        return self._close_after_last()

    def on_channel_close(self, channel: str) -> Any:
        """As a `ChannelListener`."""
        super().on_channel_close(channel)
        return self._close_after_last()

    def on_user_offline(self, user: Hashable) -> Any:
        """As a `ChannelListener`."""
        super().on_user_offline(user)
        return self._close_after_last()

    def _close_after_last(self) -> Any:
        is_last = self._is_stopping and (self._manager is None or self.manager.connection_count == 0)
        return self.hooks.close() if is_last else None


def count(hub: Hub) -> tuple[int, int]:
    """Returns how many users and connections a server has, on all endpoints."""
    users = {user for manager in hub.managers for user in manager.users}
    return len(users), sum(manager.connection_count for manager in hub.managers)


def rules_for(settings: HookSettings) -> Rules:
    """Returns the rules of a server whose backend decides: by answers, or else by what connect's answer allowed."""
    subscribe: Any = "hook" if "subscribe" in settings.ask else "token"
    publish: Any = "hook" if "publish" in settings.ask else "token"
    return Rules([ChannelRule(pattern="*", subscribe=subscribe, publish=publish, whisper=publish)])
