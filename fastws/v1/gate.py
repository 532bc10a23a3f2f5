"""What both kinds of socket have in common: who is let in, until when, and what the backend is asked and told."""

import asyncio
import base64
import logging
import time
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import msgspec
import orjson

from .._core import Request, WebSocket
from ..access.rules import Action, ChannelRule, Rules, Visitor
from ..errors import ConfigurationError, Reject
from ..hub import Hub, Sender
from ..listener import Listener
from ..manager import ConnectionManager
from ..nesting import nesting_fault
from .decisions import STATUSES, Connect, Refused
from .frames import SAFE, is_text, valid_channel

__all__ = ["Backend", "Gate"]

logger = logging.getLogger("fastws.v1")

DAY = 24 * 3600.0  # seconds; the longest that a timer is set for
OVER = 4001, "the connection's time is over"
MOST_REASON = 123  # bytes


class Backend(Protocol):
    """Whoever decides besides the rules, and is told. Of each answer all keys are optional.

    It is asked what the rules allow, or leave to it ("hook"), and raises Refused (or Reject, at connect) to say no.
    """

    def asks(self, event: str) -> bool:
        """Returns whether "connect", "subscribe", "publish" or "call" are asked."""

    async def connect(self, request: Request, *, ws: WebSocket | None = None) -> Connect:
        """Who it is; raises a Reject. With a ``ws``, whose time is over, it is asked again."""

    async def subscribe(self, ws: WebSocket, channel: str) -> Mapping[str, Any]:
        """Keys: message, presence, close."""

    async def publish(self, ws: WebSocket, channel: str, message: Any, to: Any) -> Mapping[str, Any]:
        """Keys: message, to, drop, close. ``to``: the users of a whisper, or None."""

    async def call(self, ws: WebSocket, method: str, params: Any) -> Mapping[str, Any]:
        """Keys: result, close."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Never waits."""


class Gate(Listener):
    """Lets in whoever the token, the backend and ``anonymous`` allow, and ends it when the time is over.

    One gate serves one endpoint.
    """

    def __init__(self, rules: Rules, *, backend: Backend | None = None, anonymous: bool = True) -> None:
        rules.check_backend(None if backend is None else backend.asks)
        self.rules = rules
        self.backend = backend
        self.anonymous = anonymous
        self._manager: ConnectionManager | None = None
        self._hub: Hub | None = None
        self._ends: dict[WebSocket, asyncio.TimerHandle | asyncio.Task[None]] = {}  # of those let in for a time
        self._described: tuple[WebSocket | None, Connect | None, dict[str, Any]] = None, None, {}  # the last one
        self._since: dict[WebSocket, float] = {}  # on the loop's clock; kept for the backend alone

    def asks(self, event: str) -> bool:
        """Returns whether there is a backend that decides on this."""
        return self.backend is not None and self.backend.asks(event)

    @property
    def hub(self) -> Hub:
        """All endpoints of the server, once somebody has come."""
        if self._hub is None:
            self._hub = Hub(self.manager.server)  # type: ignore[arg-type]  # the Server that made the manager
        return self._hub

    @property
    def manager(self) -> ConnectionManager:
        """The endpoint's, once somebody has come."""
        assert self._manager is not None
        return self._manager

    # -- coming

    def on_handshake(self, request: Request) -> Any:
        """Who it is: by a token already, or as the backend says; else without a name, where that may be."""
        if request.claims is None and self.asks("connect"):
            return self._ask_connect(request)
        self._admit(request)
        return None

    async def _ask_connect(self, request: Request) -> None:
        assert self.backend is not None
        connect = await self.backend.connect(request)
        request.user = connect.user
        self._remember(request, connect)
        self._admit(request)

    def said(self, request: Request) -> Connect | None:
        """Returns what the backend said when it let this in, if it was asked."""
        return None if self.backend is None else request.data.get("connect")

    def _remember(self, request: Request, connect: Connect) -> None:
        request.data["connect"] = connect
        request.claims = None if connect.allow is None else self.rules.as_claims(connect.allow)

    def _admit(self, request: Request) -> None:
        user = request.user
        if user is None and not self.anonymous:
            raise Reject(401, "this needs a user", headers={"WWW-Authenticate": "Bearer"})
        if not is_plain(user):
            raise Reject(401, "the user's name is no text, or too large a number")

    def authorize(self, request: Request, channel: str | None) -> Any:
        """Refuse a path that names a channel which the rules do not open."""
        connect = self.said(request)
        for name in request.path_parameters.values():
            try:
                if connect is not None and name in connect.channels:
                    continue
                self.rules.check("subscribe", valid_channel(name), Visitor(request.user, request.claims))
            except Refused as refused:
                raise Reject(STATUSES.get(refused.code, 403), refused.message) from None

    def on_open(self, ws: WebSocket) -> Any:
        """A connection is there."""
        if self._manager is None:
            self._manager = ws.manager
        elif self._manager is not ws.manager:
            raise ConfigurationError(f"{type(self).__name__} serves two endpoints: give each one of its own")
        self._set_end(ws)
        if self.backend is not None:
            self._since[ws] = time.monotonic()
            self.tell_of(ws, "connected")

    # -- going

    def on_close(self, ws: WebSocket, code: int, reason: str) -> Any:
        """A connection is over: forget it."""
        end = self._ends.pop(ws, None)
        if end is not None:
            end.cancel()
        if self.backend is not None:
            seconds = round(time.monotonic() - self._since.pop(ws, time.monotonic()), 3)
            self.tell_of(ws, "disconnected", code=code, reason=reason, seconds=seconds)

    def _set_end(self, ws: WebSocket) -> None:
        """Have a connection end, or be asked about again, when the backend said."""
        connect = self.said(ws.request)
        if connect is None or connect.expires is None or not ws.is_open:
            return
        loop = asyncio.get_running_loop()
        left = connect.expires - time.time()
        if left > 0:
            self._ends[ws] = loop.call_later(min(left, DAY), self._set_end, ws)
        elif connect.renew:
            self._ends[ws] = loop.create_task(self._renew(ws))
        else:
            ws.close(*OVER)

    async def _renew(self, ws: WebSocket) -> None:
        """Ask the backend again, whether a connection may stay."""
        assert self.backend is not None
        try:
            connect = await self.backend.connect(ws.request, ws=ws)
        except Reject as reject:
            # Whoever is not let in any more gets a fresh token or stays away; else it may come back later.
            ws.close(4001 if reject.status in (401, 403) else 4000 + reject.status, reason_of(reject.reason))
        except Exception:
            logger.exception("the backend failed for connection %s", ws.id, extra={"connection": ws.id})
            ws.close(1011, "internal error")
        else:
            if connect.user != ws.user or (connect.expires is not None and connect.expires <= time.time()):
                ws.close(*OVER)
            else:
                self._remember(ws.request, connect)
                self._set_end(ws)
                self.reconsider(ws)

    # -- what may be

    def expires(self, ws: WebSocket) -> float | None:
        """Returns the Unix time in seconds when a connection is over; None where it may stay."""
        connect = self.said(ws.request)
        expires = (ws.request.claims or {}).get("exp") if connect is None else connect.expires
        return None if expires is None else min(expires, SAFE)

    def reconsider(self, ws: WebSocket) -> None:
        """A fresh token may list fewer channels than the last: take the connection out of the others."""
        for channel in ws.channels if ws.is_open else ():
            rule = self.rules.find(channel)
            if rule is not None and rule.subscribe == "token":
                try:
                    self.check(ws, "subscribe", channel)
                except Refused:
                    self.expel(ws, channel)

    def expel(self, ws: WebSocket, channel: str) -> None:
        """A connection may not be in a channel any more."""
        ws.unsubscribe(channel)

    def check(self, ws: WebSocket, action: Action, channel: str) -> ChannelRule:
        """Returns the channel's rule if it allows an action, or leaves it to the backend; raises Refused."""
        return self.rules.check(action, channel, Visitor(ws.user, ws.request.claims, channel in ws.channels))

    def check_room(self, rule: ChannelRule | None, channel: str) -> None:
        """Raises Refused where a channel is full."""
        most = None if rule is None else rule.max_subscribers
        if most is not None and self._manager is not None and self.subscribers(channel) >= most:
            raise Refused("too_many", f"the channel is full: it takes {most} connections")

    def subscribers(self, channel: str) -> int:
        """Returns how many connections a channel has, on all endpoints."""
        return sum(manager._count(channel) for manager in self.hub.managers)

    # -- what the backend is asked and told

    async def ask_publish(
        self, ws: WebSocket, channel: str, message: Any, as_is: Any, to: Any
    ) -> tuple[bool, Any, Any]:
        """Ask what is to become of a message: whether it is delivered, what, and to whom (None: to all).

        ``as_is`` is what is delivered where the backend does not replace it.
        """
        assert self.backend is not None
        answer = await self.backend.publish(ws, channel, message, to)
        obey(ws, answer)
        narrowed = answer.get("to")
        if narrowed is not None and to is not None:
            narrowed = [user for user in narrowed if user in to]
        return not answer.get("drop", False), answer.get("message", as_is), to if narrowed is None else narrowed

    def tell_of(self, ws: WebSocket, type: str, **more: Any) -> None:
        """Tell the backend, if there is one, of an event of a connection."""
        if self.backend is not None:
            connect = self.said(ws.request)
            if self._described[:2] != (ws, connect):  # of one that leaves 100 channels it is found out once
                self._described = ws, connect, described(ws.request, ws)
            self.backend.tell({"type": type, "connection": self._described[2], **more})

    def on_user_online(self, user: Hashable) -> Any:
        """A user is there, whom no other endpoint had."""
        if self.backend is not None and not self._is_elsewhere(lambda manager: user in manager.users):
            self.backend.tell({"type": "online", "user": user})

    def on_user_offline(self, user: Hashable) -> Any:
        """A user is gone, from all endpoints."""
        if self.backend is not None and not self._is_elsewhere(lambda manager: user in manager.users):
            self.backend.tell({"type": "offline", "user": user})

    def on_channel_open(self, channel: str) -> Any:
        """A channel has its first subscriber, of all endpoints."""
        if self.backend is not None and not self._is_elsewhere(lambda manager: manager._count(channel) > 0):
            self.backend.tell({"type": "occupied", "channel": channel})

    def on_channel_close(self, channel: str) -> Any:
        """A channel has no subscribers any more, on any endpoint."""
        if self.backend is not None and not self._is_elsewhere(lambda manager: manager._count(channel) > 0):
            self.backend.tell({"type": "vacated", "channel": channel})

    def on_subscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection is in a channel."""
        self.tell_of(ws, "subscribed", channel=channel)

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection is no longer in a channel."""
        self.tell_of(ws, "unsubscribed", channel=channel)

    def _is_elsewhere(self, has: Any) -> bool:
        return any(has(manager) for manager in self.hub.managers if manager is not self._manager)


def obey(ws: WebSocket, answer: Mapping[str, Any]) -> None:
    """Close a connection where the backend's answer says so; what was queued before still arrives."""
    close = answer.get("close")
    if close is not None:
        asyncio.get_running_loop().call_soon(ws.close, close["code"], reason_of(close.get("reason", "")))


def described(request: Request, ws: WebSocket | None = None) -> dict[str, Any]:
    """Returns what the backend gets of a connection; without a ``ws``, in its handshake, it has no id and no user."""
    connect: Connect | None = request.data.get("connect")
    return {
        "id": None if ws is None else ws.id,
        "path": request.path,
        "channel": next(iter(request.path_parameters.values()), None),
        "user": None if ws is None else ws.user,
        "data": None if connect is None else connect.data,
        "remote_address": request.remote_address[0],
        "query": request.query,
        "subprotocols": request.subprotocols,
    }


def sender_of(ws: WebSocket) -> Sender:
    """Returns whose message it is."""
    return Sender(ws.user, ws.id)


def content(message: Any) -> dict[str, Any]:
    """Returns what a frame says of a message: JSON as it is, or binary as base64."""
    if isinstance(message, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(message).decode()}
    return {"message": message}


def passed_on(raw: msgspec.Raw) -> Any:
    """Returns JSON as what a hub sends: a string as a str, anything else as it came.

    Raises Refused for what some of those who get it could not read.
    """
    text = bytes(raw)
    fault = nesting_fault(text)
    if fault:
        raise Refused("bad_field", f'"message" is wrong: {fault}')
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else orjson.Fragment(text)


def value_of(raw: msgspec.Raw) -> Any:
    """Returns JSON as Python values, for a backend; raises Refused where they cannot be had."""
    fault = nesting_fault(bytes(raw))
    if fault:
        raise Refused("bad_field", f"it holds JSON that cannot be passed on: {fault}")
    try:
        return msgspec.json.decode(bytes(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("bad_field", f"it holds JSON that cannot be read: {error}") from None


def reason_of(text: str) -> str:
    """Returns as much of a text as a Close can carry (RFC 6455 5.5)."""
    return text.encode("utf-8", "replace")[:MOST_REASON].decode("utf-8", "ignore")


def is_plain(user: Any) -> bool:
    """Returns whether a frame can name a user: None, a text or a whole number that JSON keeps."""
    if isinstance(user, str):
        return is_text(user)
    return user is None or (type(user) is int and -SAFE <= user <= SAFE)
