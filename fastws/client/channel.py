"""A channel, as one who uses it sees it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal, Protocol, Self

from .errors import ChannelError
from .events import Emitter, Member, Message, Subscribed
from .progress import Progress

__all__ = ["Channel", "ChannelState", "There"]

logger = logging.getLogger("fastws.client")

MOST_UNREAD = 10_000  # messages
TYPING_EVERY = 2.0  # seconds

ChannelState = Literal["joining", "joined", "refused", "left"]


class Home(Protocol):
    """The connection, as its channels need it."""

    async def _ask(self, frame: dict[str, Any], queue: bool | None = None) -> Any: ...
    def _send(self, frame: dict[str, Any]) -> None: ...
    def _use(self, use: Channel, name: str, position: str | None) -> There: ...
    def _leave(self, use: Channel, there: There) -> None: ...


class There:
    """What a connection knows of a channel, whoever uses it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.uses: list[Channel] = []
        self.members: dict[Any, Member] = {}
        self.state: ChannelState = "joining"
        self.progress = Progress()
        self.last: Subscribed | None = None
        self.typed = -TYPING_EVERY
        self.tries = 0
        self.wanted = False  # to be brought in each hello
        self.asked = False  # on this connection
        self.leaving: set[int] = set()  # requests to be taken out that are not answered yet
        self.left = False  # before the welcome: it has to be undone what the hello asked for


class Channel(Emitter):
    """One use of a channel; the connection is in it until all that use it have left::

        async with ws.channel("cars") as cars:
            await cars.publish({"text": "hi"})
            async for message in cars:
                print(message.user, message.message)

    The block begins when the connection is in the channel; ChannelError says why it may not be. Iteration gives
    messages and whispers, over reconnects, until the channel is left; ChannelError (`left`), ConnectionRefused or
    ConnectionClosed says that somebody else ended it. `events()` gives each Subscribed as well. Of more than 10,000
    that nobody reads the oldest are dropped, and counted in `dropped`.

    Listeners (`cars.on(event, listener)`): `message` and `whisper` (a Message), `typing` and `leave` (the user), `join`
    (a Member), `presence` (a list of Member), `subscribed` (a Subscribed), `unsubscribed` (the reason), `error` (a
    ChannelError).
    """

    def __init__(self, ws: Home, there: There, position: str | None) -> None:
        super().__init__()
        self.dropped = 0
        self._ws = ws
        self._there = there
        self._start = position  # that it comes with
        self._is_told = False  # that it is in the channel
        self._unread: deque[tuple[Message | Subscribed, str | None]] = deque()  # and the position after each
        self._is_read = False  # by iteration
        self._done = self._given = position  # the positions after what was read to its end, and after what was begun
        self._is_over = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._joined: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._there.name

    @property
    def state(self) -> ChannelState:
        """`joining`, `joined`, `refused` or `left`."""
        return self._there.state

    @property
    def members(self) -> list[Member]:
        """Who is there, where the channel's rule has `presence = true`."""
        return list(self._there.members.values())

    @property
    def position(self) -> str | None:
        """Where to resume, in a channel that keeps what was sent: for an application that keeps this over its end.

        A message is behind it when all listeners have returned; where messages are iterated over, when the next one is
        asked for.
        """
        if self._is_read:
            return self._done
        return self._start if self._is_over else self._there.progress.position

    async def publish(self, message: Any, *, exclude: Literal["self"] | None = None, queue: bool | None = None) -> int:
        """Send to all in the channel; returns how many connections that is addressed to. Raises ChannelError."""
        frame = {"type": "publish", "channel": self.name, "message": message}
        if exclude is not None:
            frame["exclude"] = exclude
        return int((await self._ws._ask(frame, queue))["connections"])

    async def whisper(self, to: Any, message: Any, *, queue: bool | None = None) -> int:
        """Send to one user or several, and to our own other connections; returns as `publish`."""
        users = list(to) if isinstance(to, Iterable) and not isinstance(to, str) else [to]
        frame = {"type": "whisper", "channel": self.name, "to": users, "message": message}
        return int((await self._ws._ask(frame, queue))["connections"])

    def typing(self) -> None:
        """Say that our user types; at most once in two seconds, however often it is called."""
        if self._there.state != "joined" or time.monotonic() - self._there.typed < TYPING_EVERY:
            return
        self._there.typed = time.monotonic()
        self._ws._send({"type": "typing", "channel": self.name})

    async def presence(self) -> list[Member]:
        """Ask who is in the channel. Raises ChannelError."""
        users = (await self._ws._ask({"type": "presence", "channel": self.name}))["users"]
        return [Member(each["user"], each["since"], each["devices"]) for each in users]

    async def join(self) -> None:
        """Come into the channel, if we are not there; what `async with` does. Raises ChannelError."""
        if self._there.state == "joined" and self in self._there.uses:
            return
        self._is_over, self._error = False, None
        self._joined = asyncio.get_running_loop().create_future()
        self._there = self._ws._use(self, self.name, self._start)
        try:
            await self._joined
        except BaseException:
            self.leave()
            raise
        finally:
            self._joined = None

    def leave(self) -> None:
        """End this use of the channel, and whatever iterates over it."""
        self._ws._leave(self, self._there)
        self._finish(None)

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not isinstance(event := await self._next(), Message):
            pass
        return event

    async def events(self) -> AsyncIterator[Message | Subscribed]:
        """Iterate as over the channel itself, with each Subscribed in its place among the messages."""
        while True:
            try:
                event = await self._next()
            except StopAsyncIteration:
                return
            yield event

    async def _next(self) -> Message | Subscribed:
        self._is_read, self._done = True, self._given
        while not self._unread:
            if self._is_over:
                raise self._error or StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        event, self._given = self._unread.popleft()
        return event

    # What the connection calls.

    def _append(self, event: Message | Subscribed) -> None:
        """Keep it until it is read."""
        if len(self._unread) >= MOST_UNREAD and isinstance(self._unread.popleft()[0], Message):
            self.dropped += 1
            if self.dropped == 1:
                logger.warning("channel %r: more than %d messages are unread; the oldest go", self.name, MOST_UNREAD)
        self._unread.append((event, self._there.progress.position))
        self._changed.set()

    def _subscribed(self, subscribed: Subscribed) -> bool:
        self._is_told = True
        if self._joined is not None and not self._joined.done():
            self._joined.set_result(None)
        return self._emit("subscribed", subscribed)

    def _finish(self, error: Exception | None) -> None:
        """Nothing more comes: whoever waits is told why."""
        if not self._is_over:
            self._is_over, self._error = True, error
            self._start, self._is_told = self._there.progress.position, False
        self._changed.set()
        if self._joined is not None and not self._joined.done():
            self._joined.set_exception(error or ChannelError("left", "the channel was left", channel=self.name))
