"""The listener that speaks Pusher's protocol, version 7, at ``/app/{key}``."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from .._core import Request, WebSocket
from ..errors import Reject
from ..hub import Sender
from ..listener import Listener
from ..manager import ConnectionManager
from . import frames
from .cache import Cache
from .frames import Fault, Frame, Member, answer, event
from .names import (
    MOST_NAME,
    channel_fault,
    has_client_events,
    is_cached,
    is_presence,
    is_signed,
    own_channel,
    socket_id_of,
    ws_id_of,
)
from .occupancy import Occupancy
from .presence import Rooms
from .settings import PusherSettings
from .signing import Application
from .silence import Silence

if TYPE_CHECKING:
    from .webhooks import Webhooks

__all__ = ["PusherListener", "Tell"]

logger = logging.getLogger("fastws.pusher")

VERSIONS = range(4, 8)  # of the protocol; before 7, ids of users might be numbers
OCCUPANCY = {"channel_occupied", "channel_vacated"}
PEER = "pusher"  # where a connection's data has its Peer
UNAUTHORIZED = "Connection is unauthorized"


class Tell(Protocol):
    """Whoever posts webhooks."""

    def __call__(self, name: str, channel: str, **more: Any) -> None:
        """Something has happened in a channel; never waits."""


class Peer:
    """What is known of a connection."""

    __slots__ = ("members", "refilled", "socket_id", "tokens", "user_id")

    def __init__(self, socket_id: str, tokens: float, now: float) -> None:
        self.socket_id = socket_id
        self.user_id: str | None = None  # who has signed in
        self.members: dict[str, Member] = {}  # by presence channel
        self.tokens = tokens  # client events that it may send at once
        self.refilled = now  # on the loop's clock


class PusherListener(Listener):
    """Serves clients of Pusher's; one for each endpoint.

    ``tell`` is told what webhooks tell.
    """

    farewell = 4200, "the server is going away: come back"

    def __init__(self, settings: PusherSettings, application: Application, cache: Cache, tell: Tell) -> None:
        self.settings = settings
        self.application = application
        self.cache = cache
        self.occupancy = Occupancy(tell)
        self.rooms = Rooms(lambda name, channel, user_id: tell(name, channel, user_id=user_id))
        self.webhooks: Webhooks | None = None  # for metrics
        self._tell = tell
        self._manager: ConnectionManager | None = None
        self._silence = Silence(settings.activity_timeout, self._ask, self._give_up)
        self._handlers: dict[str, Callable[[WebSocket, Peer, Frame], Awaitable[None] | None]] = {
            "pusher:ping": self._answer_ping,
            "pusher:pong": self._ignore,
            "pusher:subscribe": self._subscribe,
            "pusher:unsubscribe": self._unsubscribe,
            "pusher:signin": self._sign_in,
        }

    @property
    def manager(self) -> ConnectionManager:
        """The endpoint's, once the server has started."""
        assert self._manager is not None
        return self._manager

    def begin(self, manager: ConnectionManager) -> None:
        """The server starts."""
        self._manager = manager
        self.rooms.begin(manager)
        if self.settings.webhook_url and OCCUPANCY & {*self.settings.webhook_events}:
            self.occupancy.begin(manager)  # what nobody is told of need not be known on other nodes

    def trigger(self, channel: str, name: str, data: str, *, socket_id: str | None = None) -> int:
        """Send an event to a channel, but not to the connection with this id. Returns how many were addressed here.

        ``data`` arrives as it is; most clients read it as JSON. A cache channel keeps it.
        """
        if is_cached(channel):
            self.cache.put(channel, name, data)
        sender = None if socket_id is None else ws_id_of(socket_id)
        return self.manager.broadcast(channel, event(name, channel, data), exclude=sender)

    # -- what a hub sends

    def envelope(self, channel: str, message: Any, sender: Sender | None) -> Any:
        """Returns the event "message", for what was published to a channel in another way than Pusher's."""
        return event("message", channel, text_of(message))

    def direct(self, message: Any) -> Any:
        """Returns the same for what was sent to connections."""
        return event("message", None, text_of(message))

    def enter(self, ws: WebSocket, channel: str) -> None:
        """Have a connection join a channel, unless it would have to say there who it is."""
        if not is_presence(channel) and channel not in ws.channels:
            ws.send(answer("pusher_internal:subscription_succeeded", {}, channel))
            ws.subscribe(channel)

    # -- coming and going

    def on_open(self, ws: WebSocket) -> Any:
        """Greet a client, or say why not."""
        try:
            self._check_handshake(ws.request)
        except Fault as fault:
            self._refuse(ws, fault, logging.WARNING)
            ws.close(fault.code, fault.message)
            return
        socket_id = socket_id_of(ws.id)
        now = asyncio.get_running_loop().time()
        ws[PEER] = Peer(socket_id, self.settings.events_per_second, now)
        greeting = {"socket_id": socket_id, "activity_timeout": self.settings.activity_timeout}
        ws.send(answer("pusher:connection_established", greeting))
        self._silence.heard(ws)

    def _check_handshake(self, request: Request) -> None:
        if request.path_parameters["key"] != self.settings.key:
            raise Fault(4001, "Application does not exist")
        protocol = request.query.get("protocol")
        if protocol is None:
            raise Fault(4008, "No protocol version supplied")
        if not re.fullmatch("[0-9]{1,9}", protocol):
            raise Fault(4006, "Invalid version string format")
        if int(protocol) not in VERSIONS:
            raise Fault(4007, f"Unsupported protocol version: {VERSIONS[0]} to {VERSIONS[-1]} work")
        most = self.settings.max_connections
        if most is not None and self.manager.connection_count > most:
            raise Fault(4004, "Application is over connection quota")

    def on_close(self, ws: WebSocket, code: int, reason: str) -> Any:
        """Forget it."""
        self._silence.forget(ws)

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection is no longer in a channel."""
        peer: Peer | None = ws.data.get(PEER)
        member = None if peer is None else peer.members.pop(channel, None)
        if member is not None:
            self.rooms.exit(channel, member, ws)

    def on_channel_open(self, channel: str) -> Any:
        """A channel has its first subscriber."""
        self.occupancy.opened(channel)

    def on_channel_close(self, channel: str) -> Any:
        """A channel has no subscribers any more."""
        self.occupancy.closed(channel)

    # -- silence

    def _ask(self, connections: Sequence[WebSocket]) -> None:
        self.manager.send(connections, frames.PING)

    def _give_up(self, ws: WebSocket) -> None:
        ws.send(frames.error(4201, "Pong reply not received in time"))
        ws.close(4201, "Pong reply not received in time")

    # -- frames

    def on_message(self, ws: WebSocket, message: str | bytes) -> Any:
        """A frame: do what it asks, or say why not."""
        peer: Peer | None = ws.data.get(PEER)
        if peer is None:
            return None  # it was refused, and is about to close
        self._silence.heard(ws)
        try:
            frame = frames.decode(message)
            handle = self._handlers.get(frame.event)
            if handle is None:
                handle = self._send_client_event
            rest = handle(ws, peer, frame)
        except Fault as fault:
            self._refuse(ws, fault)
            return None
        return None if rest is None else self._finish(ws, rest)

    async def _finish(self, ws: WebSocket, rest: Awaitable[None]) -> None:
        try:
            await rest
        except Fault as fault:
            self._refuse(ws, fault)

    def _refuse(self, ws: WebSocket, fault: Fault, level: int = logging.INFO) -> None:
        about = {"connection": ws.id, "code": fault.code}
        logger.log(level, "connection %s is told %d %r", ws.id, fault.code, fault.message, extra=about)
        ws.send(frames.error(fault.code, fault.message))
        if fault.channel is not None:
            kind, status = ("AuthError", 401) if fault.code == 4009 else ("LimitReached", 403)
            told = {"type": kind, "error": fault.message, "status": status}
            ws.send(answer("pusher:subscription_error", told, fault.channel))

    def _answer_ping(self, ws: WebSocket, peer: Peer, frame: Frame) -> None:
        ws.send(frames.PONG)

    def _ignore(self, ws: WebSocket, peer: Peer, frame: Frame) -> None:
        """It was heard, and that is all there is to it."""

    # -- channels

    def _subscribe(self, ws: WebSocket, peer: Peer, frame: Frame) -> Awaitable[None] | None:
        asked: frames.Subscribe = frames.inner(frame.data, frames.Subscribe)
        channel = asked.channel
        fault = channel_fault(channel)
        if fault:
            raise Fault(4009, f"Invalid channel name: {fault}")
        self._authorize(peer, asked)
        member = None
        if is_presence(channel):
            member = peer.members.get(channel) or frames.member_of(asked.channel_data or "")
        if channel not in ws.channels:
            if len(ws.channels) >= self.settings.max_channels:
                raise Fault(4100, f"A connection can be in {self.settings.max_channels} channels", channel)
            listening = self.manager.listening(channel)
            if listening is not None or (member is not None and self.rooms.has_others):
                return self._join_after(listening, ws, peer, channel, member)
        self._join(ws, peer, channel, member)
        return None

    def _authorize(self, peer: Peer, asked: frames.Subscribe) -> None:
        """Raises Fault for a subscription that the application's backend has not signed."""
        channel = asked.channel
        if channel.startswith("#"):
            if peer.user_id is None or channel != own_channel(peer.user_id):
                raise Fault(4009, UNAUTHORIZED, channel)
        elif is_signed(channel):
            data = [] if asked.channel_data is None else [asked.channel_data]
            if is_presence(channel) and not data:
                raise Fault(4009, "channel_data is missing: a presence channel needs it", channel)
            if not self.application.has_signed(asked.auth, peer.socket_id, channel, *data):
                raise Fault(4009, UNAUTHORIZED, channel)

    async def _join_after(
        self, listening: "asyncio.Future[None] | None", ws: WebSocket, peer: Peer, channel: str, member: Member | None
    ) -> None:
        """A newcomer gets what other nodes say from then on, and knows who is there."""
        if listening is not None:
            await asyncio.shield(listening)
        is_shared = member is not None and self.rooms.has_others
        async with self.rooms.known(channel) if is_shared else contextlib.nullcontext():
            if ws.is_open:
                self._join(ws, peer, channel, member)

    def _join(self, ws: WebSocket, peer: Peer, channel: str, member: Member | None) -> None:
        """The client is told first, so that no event of the channel comes before. A second time it is told again."""
        there: dict[str, Any] = {}
        if member is not None:
            if channel in peer.members:
                there = self.rooms.list(channel)
            else:
                there = self.rooms.enter(channel, member, ws)
                peer.members[channel] = member
        ws.send(answer("pusher_internal:subscription_succeeded", there, channel))
        ws.subscribe(channel)
        if is_cached(channel):
            self._send_cached(ws, channel)
        if member is not None:
            self._identify(ws, member.user_id)

    def _send_cached(self, ws: WebSocket, channel: str) -> None:
        cached = self.cache.get(channel)
        if cached is not None:
            ws.send(cached.frame(channel))
        else:
            ws.send(answer("pusher:cache_miss", {}, channel))
            self._tell("cache_miss", channel)

    def _unsubscribe(self, ws: WebSocket, peer: Peer, frame: Frame) -> None:
        asked: frames.Unsubscribe = frames.inner(frame.data, frames.Unsubscribe)
        ws.unsubscribe(asked.channel)

    # -- users

    def _sign_in(self, ws: WebSocket, peer: Peer, frame: Frame) -> None:
        asked: frames.Signin = frames.inner(frame.data, frames.Signin)
        if not self.application.has_signed(asked.auth, peer.socket_id, "", "user", "", asked.user_data):
            raise Fault(4009, UNAUTHORIZED)
        user_id = frames.user_of(asked.user_data)
        if peer.user_id not in (None, user_id):
            raise Fault(4009, "The connection is signed in as another user")
        peer.user_id = user_id
        ws.send(answer("pusher:signin_success", {"user_data": asked.user_data}))
        self._identify(ws, user_id)

    def _identify(self, ws: WebSocket, user_id: str) -> None:
        """Whoever signs in, or says in a presence channel who it is, is that user from then on."""
        with contextlib.suppress(Reject):  # no user may come now; those who are here stay
            self.manager.life.identify(ws, user_id)

    # -- client events

    def _send_client_event(self, ws: WebSocket, peer: Peer, frame: Frame) -> None:
        """To the other members of a channel."""
        channel, name = frame.channel, frame.event
        if not name.startswith("client-"):
            raise Fault(frames.INVALID, "Invalid message format: this event is not known")
        if self.settings.client_events == "none":
            raise Fault(4301, "The app does not have client messaging enabled.")
        if channel is None or channel not in ws.channels:
            raise Fault(4009, "The client is not a member of the specified channel.")
        if not has_client_events(channel, also_public=self.settings.client_events == "all"):
            raise Fault(4009, "Client events are for private and presence channels.")
        if len(name) > MOST_NAME:
            raise Fault(4301, f"The name of an event has up to {MOST_NAME} characters")
        if len(bytes(frame.data)) > self.settings.max_event_size:
            raise Fault(4301, f"The data of an event has up to {self.settings.max_event_size} bytes")
        self._take_token(peer)
        sent = event(name, channel, frames.relayed(frame.data))
        member = peer.members.get(channel)
        user = {} if member is None else {"user_id": member.user_id}
        self.manager.broadcast(channel, sent | user, exclude=ws)
        self._tell("client_event", channel, event=name, data=frame.data, socket_id=peer.socket_id, **user)

    def _take_token(self, peer: Peer) -> None:
        """Raises Fault for one who sends too fast."""
        rate, now = self.settings.events_per_second, asyncio.get_running_loop().time()
        peer.tokens = min(rate, peer.tokens + (now - peer.refilled) * rate)
        peer.refilled = now
        if peer.tokens < 1:
            raise Fault(4301, f"The rate limit for client events is {rate} per second.")
        peer.tokens -= 1


def text_of(message: Any) -> str:
    """Returns what was published as the data of an event, which is a string: JSON, or text as it is."""
    if isinstance(message, str):
        return message
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message).decode("utf-8", "replace")
    return orjson.dumps(message).decode()
