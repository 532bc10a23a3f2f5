"""A connection that comes back by itself."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Literal, Self, TypeAlias

import orjson
from picows import WSHandshakeError, WSMsgType, WSProtocolError

from .channel import Channel, There
from .ends import OVER, BackOff, is_final, is_soon
from .errors import ChannelError, ConnectionClosed, ConnectionRefused
from .events import Emitter, Member, Message, Subscribed
from .wire import HandshakeRefused, Wire, dial

__all__ = ["Connection", "State", "Token"]

logger = logging.getLogger("fastws.client")

Token: TypeAlias = str | Callable[[], "str | Awaitable[str | None] | None"] | None

VERSION = 1
CLIENT = "fastws-python/0.1.0"
MOST_WAITING = 100
CLOSING = 2.0  # seconds that the server has to answer a close frame
SKEWED = 30.0  # seconds until a token is renewed that is over already by our clock


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


class Connection(Emitter):
    """One connection to a server that speaks fastws.v1; `connect` makes it.

    Listeners (`ws.on(event, listener)`): `state` (a State), `direct` (a Message), `error` (a ChannelError), and of all
    channels `message`, `whisper` (a Message) and `subscribed` (a Subscribed).
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        queue: bool = False,
        retry: tuple[float, float] = (0.5, 20),
        timeout: float = 20,
        ssl: SSLContext | None = None,
        max_message_size: int = 64 * 1024 * 1024,
    ) -> None:
        super().__init__()
        self.url = url
        self.id: str | None = None
        self.user: Any = None
        self.data: Any = None
        self._token = token
        self._headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        self._queue = queue
        self._timeout = timeout
        self._ssl = ssl
        self._max_message_size = max_message_size
        self._state = State("connecting")
        self._wire: Wire | None = None
        self._greeted = False
        self._silence = timeout
        self._back_off = BackOff(*retry)
        self._renewed = False  # a fresh token was tried, and has not proved its worth yet
        self._open_since = 0.0
        self._there: dict[str, There] = {}
        self._asked: dict[int, Asked] = {}
        self._last_id = 0
        self._task: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._renewal: asyncio.Task[None] | None = None
        self._welcomed: asyncio.Future[None] | None = None
        self._end: Exception | None = None

    @property
    def state(self) -> str:
        """`connecting`, `open`, `waiting` for the next attempt, or `closed`."""
        return self._state.state

    def channel(self, name: str, *, position: str | None = None) -> Channel:
        """Returns a channel, to be used in an `async with`; `position`: where to resume, of an earlier process."""
        return Channel(self, self._know(name), position)

    async def call(self, method: str, params: Any = None, *, queue: bool | None = None) -> Any:
        """Ask the backend; returns what it says. Raises ChannelError."""
        return (await self._ask({"type": "call", "method": method, "params": params}, queue))["result"]

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close for good."""
        if self.state == "closed":
            return
        wire = self._wire
        self._finish(code, reason, None)
        if wire is not None and not wire.disconnected:
            wire.send_close(code, reason)
            with suppress(TimeoutError, WSProtocolError):
                async with asyncio.timeout(CLOSING):
                    await wire.transport.wait_disconnected()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def __aenter__(self) -> Self:
        self._welcomed = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait({self._task, self._welcomed}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            reason = self._state.reason
            await self.close()
            raise TimeoutError(f"no connection to {self.url} within {self._timeout:g} s: {reason}") from None
        except BaseException:
            await self.close()
            raise
        if self._end is not None:
            raise self._end
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # Coming and going.

    async def _run(self) -> None:
        try:
            await self._come_back()
        except Exception as error:
            self._finish(1006, str(error), error)

    async def _come_back(self) -> None:
        while True:
            code, reason = await self._attempt()
            was_open = self.state == "open"
            if self.state == "closed":
                return
            self._lose()
            if was_open and time.monotonic() - self._open_since >= self._back_off.most:
                self._back_off.tries = 0
                self._renewed = False
            if is_final(code) or (code == OVER and (self._renewed or not callable(self._token))):
                refused = 4400 <= code < 4500
                self._finish(code, reason, ConnectionRefused(code - 4000, reason) if refused else None)
                return
            if code == OVER:
                self._renewed = True
            if was_open and is_soon(code):
                self._back_off.tries = 0
            wait = self._back_off.next()
            self._become(State("waiting", code, reason, wait))
            await asyncio.sleep(wait)

    async def _attempt(self) -> tuple[int, str]:
        """One connection, from the handshake to its end; returns its code and reason."""
        reason = self._state.reason
        self._become(State("connecting", reason=reason))
        try:
            token = await self._fetch_token()
        except Exception as error:
            logger.warning("no token: %r", error)
            return (OVER if self._renewed else 1006), f"no token: {error}"
        headers = [*self._headers, ("Sec-WebSocket-Protocol", "fastws.v1")]
        if token:
            headers.append(("Authorization", f"Bearer {token}"))
        wire = Wire()
        try:
            await dial(
                wire,
                self.url,
                headers=headers,
                ssl=self._ssl,
                max_message_size=self._max_message_size,
                timeout=self._timeout,
            )
        except HandshakeRefused as refused:
            return (4000 + refused.status if refused.status >= 400 else 1002), message_in(refused.body)
        except (OSError, TimeoutError, WSHandshakeError) as error:
            return 1006, str(error) or type(error).__name__
        try:
            return await self._talk(wire)
        finally:
            self._wire = None
            wire.transport.disconnect(graceful=False)

    async def _talk(self, wire: Wire) -> tuple[int, str]:
        self._wire = wire
        self._silence = self._timeout
        channels = {}
        for there in self._there.values():
            if there.wanted:
                there.asked = True
                channels[there.name] = there.position
        self._send({"type": "hello", "version": VERSION, "client": CLIENT, "channels": channels})
        self._greeted = True
        while True:
            while wire.messages:
                self._hear(wire.messages.popleft())
            if wire.disconnected:
                break
            try:
                async with asyncio.timeout(self._silence or None):
                    await wire.change()
            except TimeoutError:
                return 1006, f"nothing was heard for {self._silence:g} s"
        try:
            await wire.transport.wait_disconnected()
        except WSProtocolError as error:
            return 1006, f"the server broke the protocol: {error}"
        return wire.close_received

    def _finish(self, code: int, reason: str, error: Exception | None) -> None:
        """It is over for good; by ourselves where the code is 1000 and there is no error."""
        by_us = self._state.state != "closed" and error is None and code == 1000
        self._end = None if by_us else error or ConnectionClosed(code, reason)
        self._become(State("closed", code, reason))
        self._lose()
        for there in self._there.values():
            for use in list(there.uses):
                use._finish(self._end)
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)

    def _lose(self) -> None:
        """What is lost with a connection: for good, or until the next."""
        self._greeted = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        for there in list(self._there.values()):
            there.asked = there.left = False
            there.leaving.clear()
            there.members.clear()
            if there.state == "joined":
                there.state = "joining"
            if not there.wanted and not there.uses:
                del self._there[there.name]
        is_closed = self.state == "closed"
        for ident, asked in list(self._asked.items()):
            if not asked.sent and asked.queue and not is_closed:
                continue
            del self._asked[ident]
            if not asked.answer.done():
                asked.answer.set_exception(lost() if asked.sent else unavailable(is_closed))

    def _become(self, state: State) -> None:
        self._state = state
        self._emit("state", state)

    # Tokens.

    async def _fetch_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token

    def _renew_by(self, expires: float | None) -> None:
        """A fresh token comes before the old one is over, at a time that spreads the clients."""
        if expires and callable(self._token):
            left = expires - time.time()
            wait = left * random.uniform(0.8, 0.9) if left > 0 else SKEWED
            self._renewal = asyncio.create_task(self._renew(wait))

    async def _renew(self, wait: float) -> None:
        back_off = BackOff(self._back_off.least, self._back_off.most)
        while True:
            await asyncio.sleep(wait)
            try:
                answer = await self._ask({"type": "authenticate", "token": await self._fetch_token()})
            except Exception as error:
                logger.warning("the token is not renewed: %r", error)
                wait = back_off.next()
            else:
                self._renew_by(answer["expires"])
                return

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
        there.position = there.position or position
        there.uses.append(use)
        there.wanted = True
        there.left = False
        if there.state == "joined":
            use._subscribed()
        elif not there.asked:
            self._subscribe(there)
        return there

    def _subscribe(self, there: There) -> None:
        there.state = "joining"
        if self._greeted:  # otherwise the hello brings it
            there.asked = True
            frame = {"type": "subscribe", "channel": there.name}
            self._send(frame if there.position is None else {**frame, "position": there.position})

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
        if subscribed.position and not subscribed.count:  # of those missed, the position comes with each
            there.position = subscribed.position
        if there.left:
            self._unsubscribe(there)
            return
        for use in list(there.uses):
            use._subscribed()
            use._emit("subscribed", subscribed)
        self._emit("subscribed", subscribed)

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
        event: Literal["message", "whisper"] = "message" if frame["type"] == "message" else "whisper"
        there = self._there.get(frame["channel"])
        if there is not None:
            for use in list(there.uses):
                use._receive(event, message)
            there.position = message.position or there.position
        self._emit(event, message)

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
        if there is not None and there.asked and there.state == "joining":
            self._refuse(there, error)
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
        told = [use._emit("error", error) for use in list(there.uses if there else ())]
        if not any([self._emit("error", error), *told]):
            logger.warning("%s", error)

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


def message_in(body: bytes) -> str:
    """The message of a refusal's body, as a fastws server writes it; else the body."""
    try:
        error = orjson.loads(body)["error"]
        return f"{error['message']} ({error['request_id']})"
    except (ValueError, TypeError, KeyError):
        return body.decode("utf-8", "replace")
