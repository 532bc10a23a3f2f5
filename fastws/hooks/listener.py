"""Hooks: a backend over HTTP as a listener's backend."""

from collections.abc import Callable, Mapping
from typing import Any

from .._core import Request, WebSocket
from ..answers import RETRY
from ..errors import Reject
from ..v1.decisions import Connect, Refused
from .asking import Asker, Denied
from .posting import Figures, Poster, Unanswered, forwarded
from .settings import HookSettings
from .shapes import Answer, CallAnswer, ConnectAnswer, PublishAnswer, SubscribeAnswer, given
from .telling import Teller

__all__ = ["Hooks"]

CONNECT = "connect"  # where a listener keeps the Connect, in the connection's data
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


class Hooks:
    """Asks a backend over HTTP, and tells it. One serves all endpoints of a server.

    ``figures`` counts for metrics. ``counts``, which may be replaced, gives the numbers of users and connections for
    the heartbeat.
    """

    def __init__(self, settings: HookSettings) -> None:
        self.settings = settings
        self.counts: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._poster = Poster(settings)
        self._asker = Asker(self._poster)
        self._teller = Teller(self._poster, lambda: self.counts())

    @property
    def figures(self) -> Figures:
        """What happened so far."""
        return self._poster.figures

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
            raise Reject(503, SILENT, headers=RETRY) from None
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

    def _fields(self, request: Request) -> Mapping[str, str]:
        return forwarded(request.headers, self.settings.headers)

    def _connection(self, request: Request, ws: WebSocket | None) -> dict[str, Any]:
        """What an ask says of the connection that it is about."""
        headers = request.headers
        return {
            **connection(request, ws),
            "headers": {name.lower(): headers[name] for name in self.settings.headers if name in headers},
        }


def connection(request: Request, ws: WebSocket | None) -> dict[str, Any]:
    """Returns what the backend is told of a connection; during its handshake it has no id yet, and no user."""
    said: Connect | None = request.data.get(CONNECT)
    return {
        "id": None if ws is None else ws.id,
        "path": request.path,
        "channel": request.path_parameters.get("channel"),
        "user": None if ws is None else ws.user,
        "data": None if said is None else said.data,
        "remote_address": request.remote_address[0],
        "query": request.query,
        "subprotocols": request.subprotocols,
    }
