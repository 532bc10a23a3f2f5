"""The store of several workers on one machine, as one worker uses it: it asks the hub, in its supervisor."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import msgpack

from ..errors import ConfigurationError
from ..logs import Position
from .base import BackplaneError, Beat, Follower, LogName, NodeKey, Observer, Read, Receiver, Subject, UserName
from .hub_frames import (
    ANSWER,
    BEGUN,
    CALLS,
    FAILED,
    FREE,
    GONE,
    HEAD,
    LOST,
    MESSAGE,
    RECORDS,
    Link,
    begun_of,
    frame,
    log_key,
    node_of,
    place_of,
    records_of,
    subject_key,
)

__all__ = ["HubClient"]

logger = logging.getLogger("fastws.hub")

SCHEME = "hub://"
MOST_CALLS = 0xFFFF_FFFF  # before their numbers begin anew
# What the hub must know in any case; there is no more of it than there are names.
ALWAYS = {"hello", "rename", "listen", "ignore", "follow", "unfollow"}


class Waiting(NamedTuple):
    """A call that was not answered yet."""

    done: "asyncio.Future[Any]"
    decode: Callable[[bytes], Any]
    until: float


class HubClient:
    """A `Backplane` at the other end of a socket pair, whose descriptor the URL names: ``hub://7``.

    `fastws serve --workers` sets it. It can be started once: its end is the hub's sign that the worker has ended.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.lost = 0
        self._receivers: dict[bytes, Receiver] = {}
        self._followers: dict[bytes, Follower] = {}
        self._waiting: dict[int, Waiting] = {}  # the oldest first
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._link: HubLink | None = None
        self._answers = False
        self._is_stopping = False

    @property
    def is_connected(self) -> bool:
        """Whether the supervisor is there, and has answered in time."""
        return self._link is not None and self._answers

    async def start(self, node: NodeKey, observer: Observer, *, prefix: str, timeout: float, buffer: int) -> None:
        """Say who this is. Raises ConfigurationError where there is no supervisor."""
        self._loop = asyncio.get_running_loop()
        self._observer, self._timeout = observer, timeout
        link = HubLink(self, buffer)
        await self._loop.create_unix_connection(lambda: link, sock=self._end())
        self._link = link
        with contextlib.suppress(BackplaneError):  # it does not answer yet: that is said when it does
            await self._ask("hello", node)

    def _end(self) -> socket.socket:
        try:
            if self._link is not None or self._is_stopping:
                raise OSError("it was started before")
            end = socket.socket(fileno=int(self.url.removeprefix(SCHEME)))
            end.set_inheritable(False)
            end.setblocking(False)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"backplane={self.url!r} is no supervisor ({error}): only `fastws serve --workers` sets it"
            ) from None
        return end

    async def stop(self) -> None:
        """Send what is still waiting, and close."""
        self._is_stopping = True
        link, self._link = self._link, None
        if link is not None:
            await link.close(self._timeout)

    def rename(self, node: NodeKey) -> None:
        """The node goes on under its next incarnation."""
        self._tell("rename", node)

    # -- messages

    def send(self, subject: Subject, payload: bytes) -> None:
        """Send to the other workers that listen."""
        link = self._link
        if link is None or link.is_full:
            self.lost += 1
            return
        key = subject_key(subject)
        link.put(b"%b%b%b" % (HEAD.pack(len(key) + len(payload), MESSAGE, len(key)), key, payload))

    async def listen(self, receivers: Mapping[Subject, Receiver]) -> None:
        """Have receivers called."""
        found = {subject_key(subject): receive for subject, receive in receivers.items()}
        self._receivers.update(found)
        await self._ask("listen", list(found))

    def ignore(self, subjects: Collection[Subject]) -> None:
        """Listen no more."""
        keys = [subject_key(subject) for subject in subjects]
        for key in keys:
            self._receivers.pop(key, None)
        self._tell("ignore", keys)

    def route(self, users: Sequence[UserName], payload: bytes) -> None:
        """Send once to each other node that has any of the users."""
        if not self._tell("route", users, payload):
            self.lost += 1

    # -- logs

    def append(
        self, log: LogName, payload: bytes, *, key: str | None = None, is_deletion: bool = False, id: str | None = None
    ) -> asyncio.Future[Position]:
        """Append a record."""
        return self._ask("append", place_of(log), payload, key, is_deletion, id)

    async def follow(self, followers: Mapping[LogName, Follower]) -> None:
        """Have followers told."""
        self._followers.update({log_key(log.endpoint, log.name): follower for log, follower in followers.items()})
        await self._ask("follow", [place_of(log) for log in followers])

    def unfollow(self, logs: Collection[LogName]) -> None:
        """Follow no more."""
        for log in logs:
            self._followers.pop(log_key(log.endpoint, log.name), None)
        self._tell("unfollow", [place_of(log) for log in logs])

    async def read(self, log: LogName, since: Position | None, limit: int) -> Read:
        """Returns what came after a position."""
        found: Read = await self._ask("read", place_of(log), since, limit)
        return found

    async def snapshot(self, log: LogName) -> Read:
        """Returns the newest records."""
        found: Read = await self._ask("snapshot", place_of(log))
        return found

    async def tops(self, logs: Sequence[LogName]) -> list[Position]:
        """Returns the ends of logs."""
        found: list[Position] = await self._ask("tops", [place_of(log) for log in logs])
        return found

    async def broken(self, log: LogName, seen: Position) -> Position:
        """Begin a log anew if it has not the record seen."""
        top: Position = await self._ask("broken", place_of(log), seen)
        return top

    async def clear(self, log: LogName) -> Position:
        """Begin a log anew, empty."""
        top: Position = await self._ask("clear", place_of(log))
        return top

    # -- users and nodes

    async def claim(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """This node has these users."""
        others: list[list[NodeKey]] = await self._ask("claim", users)
        return others

    async def release(self, users: Sequence[UserName], node: NodeKey | None = None) -> list[list[NodeKey]]:
        """A node has these users no more."""
        others: list[list[NodeKey]] = await self._ask("release", users, node)
        return others

    async def find(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """Returns which nodes have each user."""
        nodes: list[list[NodeKey]] = await self._ask("find", users)
        return nodes

    async def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns the users of a node."""
        users: list[UserName] = await self._ask("holdings", node)
        return users

    async def beat(self, info: bytes) -> Beat:
        """Count this node's beats."""
        beat: Beat = await self._ask("beat", info)
        return beat

    async def bury(self, node: NodeKey, beats: int) -> list[NodeKey]:
        """Take a node for dead."""
        jobs: list[NodeKey] = await self._ask("bury", node, beats)
        return jobs

    async def buried(self, node: NodeKey) -> None:
        """All of a dead node is released."""
        await self._ask("buried", node)

    async def leave(self) -> None:
        """This node stops."""
        await self._ask("leave")

    # -- calls

    def _tell(self, name: str, *arguments: Any) -> bool:
        """Call without an answer. Returns whether that was possible."""
        link = self._link
        if link is None or (link.is_full and name not in ALWAYS):
            return False
        link.put(frame(CALLS[name].operation, FREE, msgpack.encode(arguments)))
        return True

    def _ask(self, name: str, *arguments: Any) -> "asyncio.Future[Any]":
        """Call; the answer comes, or a BackplaneError after the timeout."""
        done: asyncio.Future[Any] = self._loop.create_future()
        link = self._link
        if link is None or (link.is_full and name not in ALWAYS):
            done.set_exception(BackplaneError(f"{name}: {self.url} does not answer"))
            return done
        self._number = self._number % MOST_CALLS + 1
        call = CALLS[name]
        self._waiting[self._number] = Waiting(done, call.result.decode, self._loop.time() + self._timeout)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._look)
        link.put(frame(call.operation, self._number, msgpack.encode(arguments)))
        return done

    def _look(self) -> None:
        """Give up the calls whose time is over."""
        self._timer = None
        now = self._loop.time()
        while self._waiting:
            number, oldest = next(iter(self._waiting.items()))
            if oldest.until > now:
                self._timer = self._loop.call_at(oldest.until, self._look)
                return
            del self._waiting[number]
            _fail(oldest.done, f"{self.url} has not answered within {self._timeout:g} s")
            self._silent("the supervisor does not answer")

    def _answered(self) -> None:
        if not self._answers and self._link is not None:
            self._answers = True
            self._observer.on_connected()

    def _silent(self, reason: str) -> None:
        if self._answers:
            self._answers = False
            self._observer.on_disconnected(reason)

    # -- what the link says

    def on_message(self, subject: bytes, payload: bytes) -> None:
        """A message came."""
        receive = self._receivers.get(subject)
        if receive is not None:
            receive(payload)

    def on_frame(self, operation: int, number: int, body: bytes) -> None:
        """Anything else came."""
        if operation in (ANSWER, FAILED):
            self._on_answer(operation == ANSWER, number, body)
        elif operation in (RECORDS, BEGUN):
            self._on_log(operation == RECORDS, body[:number], body[number:])
        elif operation == GONE:
            self._observer.on_gone(node_of(body))
        elif operation == LOST:
            self.lost += number
            self._silent(f"this worker has not read for too long: {number} messages are lost")
            self._answered()

    def _on_answer(self, is_good: bool, number: int, body: bytes) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not is_good:
            _fail(waiting.done, body.decode())
        elif waiting is not None and not waiting.done.done():
            waiting.done.set_result(waiting.decode(body))
        self._answered()

    def _on_log(self, are_records: bool, key: bytes, body: bytes) -> None:
        follower = self._followers.get(key)
        if follower is None:
            return
        if are_records:
            follower.on_records(*records_of(body))
        else:
            follower.on_begun(*begun_of(body))

    def on_end(self) -> None:
        """The supervisor is gone, or this was told to stop."""
        self._link = None
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_stopping:
            self._silent("the supervisor is gone")
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            _fail(each.done, f"{self.url}: the supervisor is gone")


class HubLink(Link):
    """The socket to the hub."""

    def __init__(self, client: HubClient, limit: int) -> None:
        super().__init__(limit)
        self._client = client

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._client.on_end()

    def take(self, data: bytes) -> int:
        position, end = 0, len(data)
        client, head, unpack = self._client, HEAD.size, HEAD.unpack_from
        while end - position >= head:
            length, operation, number = unpack(data, position)
            body = position + head
            stop = body + length
            if stop > end:
                break
            try:
                if operation == MESSAGE:
                    name = body + number
                    client.on_message(data[body:name], data[name:stop])
                else:
                    client.on_frame(operation, number, data[body:stop])
            except Exception:
                logger.exception("whoever was told by the hub failed")
            position = stop
        return position


def _fail(done: "asyncio.Future[Any]", why: str) -> None:
    if not done.done():
        done.set_exception(BackplaneError(why))
