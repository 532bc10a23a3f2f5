"""What is said on a connection, while there is one: frames, and the channels that they are about."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson
from picows import WSMsgType

from .channel import Channel, There
from .ends import BackOff
from .errors import ChannelError
from .events import Emitter, Member, Message, Subscribed
from .wire import Wire

__all__ = ["Asked", "State", "Talk", "lost", "unavailable"]

logger = logging.getLogger("fastws.client")

MOST_WAITING = 100


@dataclass(frozen=True, slots=True)
class State:
    """How a connection is. `code` and `reason` are of the end of the last one, `wait` the seconds until the next."""

    state: Literal["connecting", "open", "waiting", "closed"]
    code: int | None = None
    reason: str = ""
    wait: float | None = None


@dataclass(slots=True)
class Asked:
    """A frame that waits for its answer, or to be sent."""

    frame: dict[str, Any]
    answer: asyncio.Future[Any]
    queue: bool
    sent: bool


class Talk(Emitter):
    """The half of a connection that does not mind how it is made."""

    def __init__(self, queue: bool, back_off: BackOff) -> None:
        super().__init__()
        self.id: str | None = None
        self.user: Any = None
        self.data: Any = None
        self._queue = queue
        self._back_off = back_off
        self._state = State("connecting")
        self._end: Exception | None = None
        self.duplicates = 0
        self._wire: Wire | None = None
        self._greeted = False
        self._silence = 0.0  # seconds of it that are too many
        self._open_since = 0.0
        self._welcomed: asyncio.Future[None] | None = None
        self._there: dict[str, There] = {}
        self._asked: dict[int, Asked] = {}
        self._last_id = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def state(self) -> str:
        """`connecting`, `open`, `waiting` for the next attempt, or `closed`."""
        return self._state.state

    def _become(self, state: State) -> None:
        self._state = state
        self._emit("state", state)

    def _renew_by(self, expires: float | None) -> None:
        raise NotImplementedError

    # Channels.

    def _know(self, name: str) -> There:
        there = self._there.get(name)
        if there is None:
            there = self._there[name] = There(name)
        return there

    def _use(self, use: Channel, name: str, position: str | None) -> There:
        if self.state == "closed":
            raise self._end or unavailable(True)
        there = self._know(name)
        if there.progress.position is None:
            there.progress.position = position
        there.uses.append(use)
        there.wanted = True
        there.left = False
        if there.state == "joined":
            told = self._view(use, there)
            if told is not None:
                use._subscribed(told)
                use._append(told)
        elif not there.asked:
            self._subscribe(there)
        return there

    def _subscribe(self, there: There) -> None:
        there.state = "joining"
        if self._greeted:  # otherwise the hello brings it
            there.asked = True
            frame = {"type": "subscribe", "channel": there.name}
            position = there.progress.position
            self._send(frame if position is None else {**frame, "position": position})

    def _view(self, use: Channel, there: There) -> Subscribed | None:
        """What a use is told as the channel is joined: it has nothing of a log if it comes later than others.

        None: it is told with the next snapshot.
        """
        subscribed, position = there.last, there.progress.position
        assert subscribed is not None
        if not subscribed.log or use._is_told or use._start == position:
            return subscribed
        if subscribed.log != "latest":
            return replace(subscribed, position=position, recovered=False, reason="new", count=0)
        there.progress.position = None  # so there will be a snapshot
        if there.state == "joined":
            self._subscribe(there)
        return None

    def _leave(self, use: Channel, there: There) -> None:
        if use not in there.uses:
            return
        there.uses.remove(use)
        if there.uses or not there.wanted:
            return
        there.wanted = False
        if not there.asked:
            self._there.pop(there.name, None)
        elif self.state == "open":
            self._unsubscribe(there)
        else:
            there.left = True

    def _unsubscribe(self, there: There) -> None:
        there.asked = there.left = False
        there.state = "left"
        self._last_id += 1
        there.leaving.add(self._last_id)
        self._send({"type": "unsubscribe", "id": self._last_id, "channel": there.name})

    # Frames.

    def _send(self, frame: Mapping[str, Any]) -> None:
        if self._wire is not None and not self._wire.disconnected and not self._wire.close_sent:
            self._wire.transport.send(WSMsgType.TEXT, orjson.dumps(frame))

    async def _ask(self, frame: dict[str, Any], queue: bool | None = None) -> Any:
        """Send a frame that has an answer, now or, with `queue`, when there is a connection; returns the answer."""
        queue = self._queue if queue is None else queue
        is_open = self.state == "open"
        if self.state == "closed" or (self.state == "waiting" and not queue):
            raise unavailable(self.state == "closed")
        if not is_open and sum(not asked.sent for asked in self._asked.values()) >= MOST_WAITING:
            raise ChannelError("unavailable", f"{MOST_WAITING} are waiting for the connection already", retry=True)
        self._last_id = ident = self._last_id + 1
        frame = {**frame, "id": ident}
        payload = asyncio.get_running_loop().create_future()
        self._asked[ident] = Asked(frame, payload, queue, is_open)
        try:
            if is_open:
                self._send(frame)
            return await payload
        finally:
            self._asked.pop(ident, None)

    def _hear(self, text: str | bytes) -> None:
        try:
            frame = orjson.loads(text)
            kind = frame.get("type")
            if kind is None:
                return
            hear = getattr(self, f"_hear_{kind}", None)
            if hear is not None:
                hear(frame)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._trouble(ChannelError("bad_frame", f"the server sent what cannot be understood: {error!r}"))

    def _hear_welcome(self, frame: Mapping[str, Any]) -> None:
        self.id, self.user, self.data = frame["id"], frame["user"], frame.get("data")
        if frame.get("retry"):
            self._back_off.least, self._back_off.most = frame["retry"]
        self._silence = 2 * (frame.get("heartbeat") or 0)
        self._open_since = time.monotonic()
        self._renew_by(frame.get("expires"))
        self._become(State("open"))
        for asked in list(self._asked.values()):
            if not asked.sent:
                asked.sent = True
                self._send(asked.frame)
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)

    def _hear_subscribed(self, frame: Mapping[str, Any]) -> None:
        names = Subscribed.__dataclass_fields__
        subscribed = Subscribed(**{name: value for name, value in frame.items() if name in names})
        there = self._know(subscribed.channel)
        if there.leaving:
            return
        there.asked, there.tries, there.state, there.last = True, 0, "joined", subscribed
        if there.left:
            self._unsubscribe(there)
            return
        uses = list(there.uses)
        for use in uses:
            use._is_told = use._is_told or subscribed.snapshot
        told = [(use, view) for use in uses if (view := self._view(use, there)) is not None]
        results = [*(use._subscribed(view) for use, view in told), self._emit("subscribed", subscribed)]
        there.progress.begin(subscribed, all(results))
        for use, view in told:
            use._append(view)

    def _hear_unsubscribed(self, frame: Mapping[str, Any]) -> None:
        there = self._there.get(frame["channel"])
        if there is None:
            return
        is_own = frame.get("id") in there.leaving
        there.leaving.discard(frame.get("id", 0))
        if is_own and there.asked:  # since then it was asked for again
            return
        there.asked = there.wanted = False
        there.state = "left"
        uses, there.uses = there.uses, []
        for use in uses:
            use._emit("unsubscribed", frame["reason"])
            use._finish(ChannelError("left", f"no longer in {there.name}: {frame['reason']}", channel=there.name))
        del self._there[there.name]

    def _hear_message(self, frame: Mapping[str, Any]) -> None:
        message = Message.of(frame)
        there = self._there.get(frame["channel"]) or There(frame["channel"])
        if not there.progress.is_new(message.position):
            self.duplicates += 1
            return
        uses = list(there.uses)
        results = [each._emit(frame["type"], message) for each in (*uses, self)]
        there.progress.passed(message.position, all(results))
        for use in uses:
            use._append(message)

    _hear_whisper = _hear_message

    def _hear_typing(self, frame: Mapping[str, Any]) -> None:
        self._tell(frame["channel"], "typing", frame["user"])

    def _hear_presence(self, frame: Mapping[str, Any]) -> None:
        name, event = frame["channel"], frame["event"]
        there = self._there.get(name) or There(name)
        if event == "list":
            there.members = {
                each["user"]: Member(each["user"], each["since"], each["devices"]) for each in frame["users"]
            }
            self._answer(frame)
            self._tell(name, "presence", list(there.members.values()))
        elif event == "join":
            member = there.members[frame["user"]] = Member(frame["user"], frame["since"], 1)
            self._tell(name, "join", member)
        elif event == "leave":
            there.members.pop(frame["user"], None)
            self._tell(name, "leave", frame["user"])

    def _hear_direct(self, frame: Mapping[str, Any]) -> None:
        self._emit("direct", Message.of(frame))

    def _answer(self, frame: Mapping[str, Any]) -> None:
        asked = self._asked.get(frame.get("id", 0))
        if asked is not None and not asked.answer.done():
            asked.answer.set_result(frame)

    _hear_ack = _hear_result = _hear_authenticated = _answer

    def _hear_error(self, frame: Mapping[str, Any]) -> None:
        error = ChannelError(frame["code"], frame["message"], bool(frame.get("retry")), frame.get("channel"))
        ident = frame.get("id", 0)
        asked = self._asked.get(ident)
        if asked is not None:
            if not asked.answer.done():
                asked.answer.set_exception(error)
            return
        there = self._there.get(frame.get("channel", ""))
        if there is not None and ident in there.leaving:
            there.leaving.discard(ident)
            return
        # One error tells of all channels of a hello that were too many.
        for each in (there, *map(self._there.get, frame.get("channels", ()))):
            if each is not None and each.asked and each.state == "joining":
                self._refuse(each, error)
        self._trouble(error, there)

    def _refuse(self, there: There, error: ChannelError) -> None:
        there.asked = False
        if error.retry:
            again = BackOff(self._back_off.least, self._back_off.most)
            again.tries = there.tries = there.tries + 1
            loop = asyncio.get_running_loop()
            self._timers[there.name] = loop.call_later(again.next(), self._subscribe_again, there)
            return
        there.wanted = False
        there.state = "refused"
        for use in list(there.uses):
            use._finish(error)

    def _subscribe_again(self, there: There) -> None:
        if there.wanted and not there.asked:
            self._subscribe(there)

    def _trouble(self, error: ChannelError, there: There | None = None) -> None:
        those = (*(there.uses if there else ()), self)
        if not any(each._hears("error") for each in those):
            logger.warning("%s", error)
        for each in those:
            each._emit("error", error)

    def _tell(self, channel: str, event: str, value: Any) -> None:
        there = self._there.get(channel)
        for use in list(there.uses if there else ()):
            use._emit(event, value)


def unavailable(is_closed: bool) -> ChannelError:
    return ChannelError(
        "closed" if is_closed else "unavailable", "there is no connection: nothing was sent", not is_closed
    )


def lost() -> ChannelError:
    return ChannelError("lost", "the connection was lost before the answer: it may have been done")
