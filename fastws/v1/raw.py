"""Plain sockets: a channel without any envelope, in and out."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .._core import Request, WebSocket
from ..errors import ConfigurationError, Reject
from ..routing import Template
from .decisions import STATUSES, Refused
from .gate import Gate, content, obey, reason_of, sender_of

__all__ = ["RawListener", "RawSettings"]


class RawSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[raw]``: plain sockets, which are off without it."""

    path: Annotated[str, Meta(description="path of plain sockets; {channel} in it names the channel")] = (
        "/raw/{channel}"
    )

    def __post_init__(self) -> None:
        if Template(self.path).names != ["channel"]:
            raise ConfigurationError(
                f"path={self.path!r}: it needs {{channel}} and no other name, as in '/raw/{{channel}}'"
            )


class RawListener(Gate):
    """What a member sends goes to all members of the path's ``{channel}`` as it is; the rules decide who is one.

    Whoever sends what is not allowed is closed with 1008, since a plain socket has no other answer.
    """

    def authorize(self, request: Request, channel: str | None) -> Any:
        """Refuse whom the channel's rule does not let subscribe, or has no room for."""
        super().authorize(request, channel)
        assert channel is not None
        try:
            self.check_room(self.rules.find(channel), channel)
        except Refused as refused:
            raise Reject(STATUSES[refused.code], refused.message) from None

    def on_open(self, ws: WebSocket) -> Any:
        """Ask the backend, where it decides on subscriptions; the engine subscribes afterwards."""
        super().on_open(ws)
        return self._ask_subscribe(ws) if self.asks("subscribe") else None

    async def _ask_subscribe(self, ws: WebSocket) -> None:
        assert self.backend is not None
        try:
            answer = await self.backend.subscribe(ws, channel_of(ws))
        except Refused as refused:
            ws.close(4000 + STATUSES.get(refused.code, 403), reason_of(refused.message))
            return
        if "message" in answer:
            ws.send(answer["message"])
        obey(ws, answer)

    def on_message(self, ws: WebSocket, message: str | bytes) -> Any:
        """Publish it."""
        channel = channel_of(ws)
        try:
            self.check(ws, "publish", channel)
        except Refused as refused:
            ws.close(1008, reason_of(refused.message))
            return None
        if self.asks("publish"):
            return self._ask_publish(ws, channel, message)
        self.hub.broadcast(channel, message, sender=sender_of(ws))
        return None

    def expel(self, ws: WebSocket, channel: str) -> None:
        """The path's channel is all that it is here for."""
        ws.close(4403, "this channel is not allowed any more")

    async def _ask_publish(self, ws: WebSocket, channel: str, message: str | bytes) -> None:
        asked = message if isinstance(message, str) else content(message)
        try:
            wanted, replaced, to = await self.ask_publish(ws, channel, asked, message, None)
        except Refused as refused:
            ws.close(1013 if refused.retry else 1008, reason_of(refused.message))
            return
        if wanted:
            self.hub.broadcast(channel, replaced, users=to, sender=sender_of(ws))


def channel_of(ws: WebSocket) -> str:
    """Returns the path's channel."""
    return ws.path_parameters["channel"]
