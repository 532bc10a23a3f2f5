"""The listener that speaks fastws.v1 (docs/protocol.md)."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from .._core import EVERYONE_KIND, Request, WebSocket
from ..access.rules import Rules
from ..backplane.base import BackplaneError
from ..errors import ConfigurationError
from ..hub import Sender
from . import frames
from .channels import Channels
from .decisions import Refused
from .frames import AnyFrame, decode, named, valid_channel
from .gate import Backend, content, obey, passed_on, sender_of, value_of

__all__ = ["PROTOCOL", "Backend", "ChannelListener"]

logger = logging.getLogger("fastws.v1")

PROTOCOL = "fastws.v1"
RETRY = [0.5, 20]  # seconds: a client waits from the least, doubling up to the most, before it comes back
SILENCE = 1008, "the first frame is a hello"
TYPING = 2.0  # seconds within which a user is said to type once
ALIVE = "{}"

clock = time.monotonic


class ChannelListener(Channels):
    """Serves fastws.v1 at ``/ws`` and ``/ws/{room}``: channels, as ``rules`` and the ``backend`` allow.

        server.endpoint(["/ws", "/ws/{room}"], ChannelListener(rules))

    The path's parameter, whatever its name is but ``channel``, is a channel to be in from the start. ``anonymous``:
    whether those may connect who have no user. A connection is in at most ``max_channels``. Every ``heartbeat`` seconds
    all get a sign of life (0: never), and who has not said hello ``hello_timeout`` seconds after coming is closed.
    """

    reads_refusals = PROTOCOL

    def __init__(
        self,
        rules: Rules,
        *,
        backend: Backend | None = None,
        anonymous: bool = True,
        max_channels: int = 100,
        heartbeat: float = 20,
        hello_timeout: float = 10,
    ) -> None:
        super().__init__(rules, backend=backend, anonymous=anonymous, max_channels=max_channels)
        self.heartbeat = heartbeat
        self.hello_timeout = hello_timeout
        self._waiting: dict[WebSocket, Waiting] = {}  # for hello, in the order of coming
        self._clock: asyncio.TimerHandle | None = None
        self._heart: asyncio.TimerHandle | None = None
        self._typing: dict[tuple[str, Any], float] = {}  # when, on time's clock; the oldest first
        self._handlers: dict[type[AnyFrame], Callable[[WebSocket, Any], Awaitable[None] | None]] = {
            frames.Hello: self._again,
            frames.Subscribe: self._subscribe,
            frames.Unsubscribe: self._unsubscribe,
            frames.Publish: self._publish,
            frames.Whisper: self._whisper,
            frames.Typing: self._type,
            frames.Presence: self._presence,
            frames.Call: self._call,
            frames.Authenticate: self._authenticate,
        }

    # -- what a hub sends

    def envelope(self, channel: str, message: Any, sender: Sender | None) -> Any:
        """Returns the frame for what was published to a channel; ``sender`` is None for what came over HTTP."""
        return {
            "type": "message",
            "channel": channel,
            **content(message),
            "from": None if sender is None else {"user": sender.user, "id": sender.id},
            "time": now(),
        }

    def direct(self, message: Any) -> Any:
        """Returns the frame for what was sent to connections rather than to a channel."""
        return {"type": "direct", **content(message), "time": now()}

    def is_deaf(self, ws: WebSocket) -> bool:
        """Returns whether nothing may be sent to a connection yet: it has not said hello."""
        return ws in self._waiting

    def enter(self, ws: WebSocket, channel: str) -> None:
        """Have a connection join a channel, whatever the rules say; after its hello."""
        waiting = self._waiting.get(ws)
        if waiting is None:
            self._in_background(self._join(ws, frames.Subscribe(channel=channel), {}, None))
        else:
            waiting.channels[channel] = None

    # -- coming and going

    def on_handshake(self, request: Request) -> Any:
        """Agree on the subprotocol; then whoever it is."""
        if PROTOCOL in request.subprotocols:
            request.subprotocol = PROTOCOL
        return super().on_handshake(request)

    def authorize(self, request: Request, channel: str | None) -> Any:
        """The path's channel is joined after hello, and not by the engine."""
        if channel is not None:
            raise ConfigurationError(f"{request.path!r}: name the path's parameter {{room}}, as in '/ws/{{room}}'")
        return super().authorize(request, channel)

    def on_open(self, ws: WebSocket) -> Any:
        """Wait for its hello."""
        super().on_open(ws)
        loop = asyncio.get_running_loop()
        self._waiting[ws] = Waiting(loop.time() + self.hello_timeout)
        if self._clock is None:
            self._clock = loop.call_later(self.hello_timeout, self._close_silent)
        if self._heart is None and self.heartbeat:
            self._heart = loop.call_later(self.heartbeat, self._beat)

    def on_close(self, ws: WebSocket, code: int, reason: str) -> Any:
        """Forget it."""
        self._waiting.pop(ws, None)
        super().on_close(ws, code, reason)
        if self.manager.connection_count == 0:
            for timer in (self._clock, self._heart):
                if timer is not None:
                    timer.cancel()
            self._clock = self._heart = None
            self._typing.clear()

    def _close_silent(self) -> None:
        """Close those that have not said hello in time: they stand first."""
        loop = asyncio.get_running_loop()
        self._clock = None
        for ws, waiting in list(self._waiting.items()):
            if waiting.deadline > loop.time():
                self._clock = loop.call_at(waiting.deadline, self._close_silent)
                return
            del self._waiting[ws]
            ws.close(*SILENCE)

    def _beat(self) -> None:
        """A sign of life to everybody at once."""
        self._heart = asyncio.get_running_loop().call_later(self.heartbeat, self._beat)
        everybody = self.manager._members(EVERYONE_KIND, None)
        self.manager.send([ws for ws in everybody if ws not in self._waiting], ALIVE)

    # -- frames

    def on_message(self, ws: WebSocket, message: str | bytes) -> Any:
        """A frame: do what it asks, or say why not."""
        if ws in self._waiting:
            return self._first(ws, message)
        if message == ALIVE:
            return None
        try:
            frame = decode(message)
        except Refused as refused:
            self._refuse(ws, refused, named(message))
            return None
        if frame is None:
            return None
        return self._do(ws, frame, self._handlers[type(frame)])

    def _do(self, ws: WebSocket, frame: Any, handle: Callable[[WebSocket, Any], Awaitable[None] | None]) -> Any:
        try:
            rest = handle(ws, frame)
        except Refused as refused:
            self._refuse(ws, refused, about(frame))
            return None
        except Exception as error:
            self._fail(ws, frame, error)
            return None
        return None if rest is None else self._finish(ws, frame, rest)

    async def _finish(self, ws: WebSocket, frame: Any, rest: Awaitable[None]) -> None:
        """What has to wait for the backend. Whatever that raises, the connection stays."""
        try:
            await rest
        except Refused as refused:
            self._refuse(ws, refused, about(frame))
        except Exception as error:
            self._fail(ws, frame, error)

    def _fail(self, ws: WebSocket, frame: AnyFrame, error: Exception) -> None:
        logger.error("a frame of connection %s failed", ws.id, exc_info=error, extra={"connection": ws.id})
        self._refuse(ws, Refused("internal", "internal server error", retry=True), about(frame))

    def _refuse(self, ws: WebSocket, refused: Refused, about: Mapping[str, Any]) -> None:
        error = {"type": "error", "code": refused.code, "message": refused.message, "retry": refused.retry}
        ws.send({**error, **about})

    def _acknowledge(self, ws: WebSocket, frame: AnyFrame, **more: Any) -> None:
        if frame.id is not None:
            ws.send({"type": "ack", "id": frame.id, **more})

    # -- hello

    def _first(self, ws: WebSocket, message: str | bytes) -> Any:
        """The first frame has to be a hello."""
        try:
            frame = decode(message)
            if not isinstance(frame, frames.Hello):
                raise Refused("bad_field", '"type" is wrong: the first frame is a hello')
        except Refused as refused:
            self._refuse(ws, refused, named(message))
            del self._waiting[ws]
            ws.close(*SILENCE)
            return None
        return self._welcome(ws, frame)

    def _again(self, ws: WebSocket, frame: frames.Hello) -> None:
        raise Refused("bad_field", '"type" is wrong: hello was said already')

    def _welcome(self, ws: WebSocket, frame: frames.Hello) -> Any:
        connect = self.said(ws.request)
        given = dict.fromkeys(() if connect is None else connect.channels)
        given |= self._waiting.pop(ws).channels
        wanted = dict.fromkeys([*ws.path_parameters.values(), *frame.channels])
        welcome = {
            "type": "welcome",
            "version": 1,
            "id": ws.id,
            "user": ws.user,
            "expires": self.expires(ws),
            "heartbeat": self.heartbeat,
            "retry": RETRY,
            "data": None if connect is None else connect.welcome,
        }
        if frame.client is not None:
            logger.debug("connection %s is %r", ws.id, frame.client, extra={"connection": ws.id})
        ws.send(welcome)
        rest = [self._join(ws, asked_for(frame, channel), {}, None) for channel in given]
        rest.append(self._join_all(ws, [asked_for(frame, channel) for channel in wanted if channel not in given]))
        return gathered([each for each in rest if each is not None])

    def _join_all(self, ws: WebSocket, wanted: list[frames.Subscribe]) -> Awaitable[None] | None:
        """Channels that a hello asks for; one error tells of all that are too many."""
        room = max(self.max_channels - len(ws.channels), 0)
        rest = [self._do(ws, frame, self._subscribe) for frame in wanted[:room]]
        if len(wanted) > room:
            left_out = [frame.channel for frame in wanted[room:] if not frames.channel_fault(frame.channel)]
            message = f"{self._full()}: {len(wanted) - room} of hello are left out"
            self._refuse(ws, Refused("too_many", message), {"channels": left_out})
        return gathered([each for each in rest if each is not None])

    # -- messages

    def _publish(self, ws: WebSocket, frame: frames.Publish) -> Awaitable[None] | None:
        channel = valid_channel(frame.channel)
        self.check(ws, "publish", channel)
        if self.asks("publish"):
            return self._ask_publish(ws, frame)
        return self._deliver(ws, frame, passed_on(frame.message), None)

    async def _ask_publish(self, ws: WebSocket, frame: frames.Publish) -> None:
        wanted, message, to = await self.ask_publish(ws, frame.channel, *two_ways(frame.message), None)
        if not wanted:
            self._acknowledge(ws, frame, connections=0)
            return
        later = self._deliver(ws, frame, message, to)
        if later is not None:
            await later

    def _deliver(self, ws: WebSocket, frame: frames.Publish, message: Any, to: Any) -> Awaitable[None] | None:
        exclude = ws if frame.exclude == "self" else None
        if to is None and exclude is None and ws.manager.keeps(frame.channel):
            return self._store(ws, frame, message)
        if frame.key is not None:
            raise Refused("bad_field", '"key" is wrong: it is for messages to everybody in a channel of latest values')
        count = self.hub.broadcast(frame.channel, message, users=to, exclude=exclude, sender=sender_of(ws))
        self._acknowledge(ws, frame, connections=count)
        return None

    async def _store(self, ws: WebSocket, frame: frames.Publish, message: Any) -> None:
        """A message to everybody in a channel with a log: it is acknowledged once the store has it."""
        try:
            count, position = await self.hub.publish(frame.channel, message, key=frame.key, sender=sender_of(ws))
        except ValueError:
            fault = (
                "missing: this channel keeps the latest message of each"
                if frame.key is None
                else "not for this channel"
            )
            raise Refused("bad_field", f'"key" is {fault}') from None
        except BackplaneError:
            raise Refused("unavailable", "the message may not have been stored", retry=True) from None
        self._acknowledge(ws, frame, connections=count, position=str(position))

    def _whisper(self, ws: WebSocket, frame: frames.Whisper) -> Awaitable[None] | None:
        channel = valid_channel(frame.channel)
        self.check(ws, "whisper", channel)
        if self.asks("publish"):
            return self._ask_whisper(ws, frame)
        self._deliver_whisper(ws, frame, passed_on(frame.message), frame.to)
        return None

    async def _ask_whisper(self, ws: WebSocket, frame: frames.Whisper) -> None:
        wanted, message, to = await self.ask_publish(ws, frame.channel, *two_ways(frame.message), frame.to)
        if wanted:
            self._deliver_whisper(ws, frame, message, to)
        else:
            self._acknowledge(ws, frame, connections=0)

    def _deliver_whisper(self, ws: WebSocket, frame: frames.Whisper, message: Any, to: list[Any]) -> None:
        """To those of the named who are there, and to what else the sender has in the channel."""
        channel, manager = frame.channel, ws.manager
        elsewhere = {user for user in to if manager.may_be_elsewhere(channel, user)}
        there = [user for user in dict.fromkeys(to) if user in elsewhere or manager._is_there(channel, user)]
        others = [] if ws.user is None or ws.user in there else [ws.user]
        whisper = {
            "type": "whisper",
            "channel": channel,
            **content(message),
            "from": {"user": ws.user, "id": ws.id},
            "to": there,
            "time": now(),
        }
        count = manager.broadcast(channel, whisper, users=[*there, *others], exclude=ws) if there else 0
        if count == 0 and not elsewhere:
            raise Refused("no_recipient", "none of those named is in the channel")
        self._acknowledge(ws, frame, connections=count)

    def _type(self, ws: WebSocket, frame: frames.Typing) -> None:
        channel = self._own(ws, frame)
        if ws.user is None:
            raise Refused("unauthenticated", "this needs a user")
        self.check(ws, "publish", channel)
        moment = clock()
        while self._typing and self._typing[oldest := next(iter(self._typing))] <= moment - TYPING:
            del self._typing[oldest]
        if (channel, ws.user) not in self._typing:
            self._typing[channel, ws.user] = moment
            notice = {"type": "typing", "channel": channel, "user": ws.user}
            ws.manager.notify(channel, ws.user, notice, to_self=False)
        self._acknowledge(ws, frame)

    def _presence(self, ws: WebSocket, frame: frames.Presence) -> None:
        channel = self._own(ws, frame)
        if channel not in self._watched:
            raise Refused("forbidden", "this channel does not tell who is there")
        there = ws.manager.presence(channel, viewer=ws.user)
        users = [{"user": user, "since": since, "devices": devices} for user, (since, devices) in there.items()]
        answer = {"type": "presence", "channel": channel, "event": "list", "users": users}
        ws.send(answer if frame.id is None else answer | {"id": frame.id})

    # -- the rest

    def _call(self, ws: WebSocket, frame: frames.Call) -> Awaitable[None]:
        if not self.asks("call"):
            raise Refused("refused", "nobody answers calls here")
        return self._ask_call(ws, frame)

    async def _ask_call(self, ws: WebSocket, frame: frames.Call) -> None:
        assert self.backend is not None
        answer = await self.backend.call(ws, frame.method, value_of(frame.params))
        ws.send({"type": "result", "id": frame.id, "result": answer.get("result")})
        obey(ws, answer)

    def _authenticate(self, ws: WebSocket, frame: frames.Authenticate) -> Awaitable[None] | None:
        auth = ws.manager.options.auth
        renew = getattr(auth, "renew", None)
        if renew is None or ws.request.claims is None:
            raise Refused("refused", "this connection has no token that could be renewed")
        later: Awaitable[None] | None = renew(ws, frame.token, id=frame.id)
        return later


class Waiting:
    """A connection that has not said hello yet."""

    __slots__ = ("channels", "deadline")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline  # on the loop's clock
        self.channels: dict[str, None] = {}  # that the server has put it in meanwhile


def two_ways(message: msgspec.Raw) -> tuple[Any, Any]:
    """Returns a message as Python values, for the backend, and as it goes out."""
    return value_of(message), passed_on(message)


def gathered(rest: list[Awaitable[None]]) -> Awaitable[None] | None:
    """Returns what to wait for until all is done; None if there is nothing."""
    if len(rest) == 1:
        return rest[0]  # without a task of its own
    return wait_for_all(rest) if rest else None


async def wait_for_all(rest: list[Awaitable[None]]) -> None:
    """Wait until all is done."""
    await asyncio.gather(*rest)


def asked_for(hello: frames.Hello, channel: str) -> frames.Subscribe:
    """Returns what a hello says of one channel."""
    return frames.Subscribe(channel=channel, position=hello.channels.get(channel))


def now() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def about(frame: Any) -> dict[str, Any]:
    """Returns what an error says of the frame that it answers."""
    found = {}
    if frame.id is not None:
        found["id"] = frame.id
    channel = getattr(frame, "channel", None)
    if channel is not None and not frames.channel_fault(channel):
        found["channel"] = channel
    return found
