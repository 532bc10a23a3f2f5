"""The connection manager of an endpoint that has logs, or shares its channels with other nodes."""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache, partial
from re import compile as compiled
from typing import Any

from .._core import CHANNEL_KIND, Endpoint, WebSocket, many
from ..backplane.base import BackplaneError, LogName, Record, Subject
from ..logs import MOST_OFFSET, Entry, Keep, Latest, Page, Position
from ..manager import Connections
from .channel import Channel
from .follower import Missed
from .node import Node
from .payloads import message_of, packed, payload_of, unpacked
from .people import Crowds
from .reach import Reach, ids_of

__all__ = ["ClusterManager"]

REMEMBERED_CHANNELS = 4096  # of which it is known what they keep
LINGER_SECONDS = 1.0  # that a channel is listened to after its last member has left
LINGER_LOG_SECONDS = 10.0  # the same of a log: most who leave are back soon
NOWHERE = Position(MOST_OFFSET, 0)  # where no log ever is


class ClusterManager(Reach):
    """A `ConnectionManager` whose channels may have logs, and members on other nodes."""

    crowds: Crowds | None = None

    def join(self, node: Node) -> None:
        """The server starts, as this node."""
        self.meet(node)
        self.life.on_drained.add(self._drained)
        life, company = self.life, self.life.company
        self.crowds = None
        if not node.is_alone:
            self.crowds = Crowds(
                node,
                self.path,
                company.people,
                company.notices,
                globs=self.options.presence,
                is_stopping=lambda: life.is_stopping,
            )
        self._channels: dict[str, Channel] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._keep = keeper(self.options.logs or {})

    def on_backplane(self, is_connected: bool) -> None:
        """The store is there (again), or gone: tell the listener."""
        if self.crowds is not None:
            self.crowds.on_backplane(is_connected)
        self.life.tell("on_backplane", is_connected)

    def begin(self) -> None:
        """The node has started."""
        if self.crowds is not None:
            self.crowds.begin()
            self.life.company.meet(self.crowds)

    def part(self) -> None:
        """The server has stopped."""
        for timer in self._lingering.values():
            timer.cancel()
        self._channels.clear()
        if self.crowds is not None:
            self.crowds.stop()
        self.node = None

    @property
    def reaches_others(self) -> bool:
        """Whether a channel may have members, or a log, though nobody is in it here."""
        return True

    # -- channels that somebody is in

    def _join(self, kind: int, name: Any, ws: WebSocket) -> tuple[int, bool, bool]:
        joined = super()._join(kind, name, ws)
        if joined[2] and kind == CHANNEL_KIND:
            self._use(name)
        return joined

    def _leave(self, name: str, ws: WebSocket) -> bool:
        has_left = super()._leave(name, ws)
        if has_left and name in self._channels:
            self._channels[name].forget(ws)
        return has_left

    def _release_group(self, kind: int, name: Any) -> bool:
        is_over = super()._release_group(kind, name)
        if is_over and kind == CHANNEL_KIND:
            self._linger(name)
        return is_over

    def _use(self, channel: str) -> "Channel":
        """Listen to a channel, and follow its log."""
        timer = self._lingering.pop(channel, None)
        if timer is not None:
            timer.cancel()
        used = self._channels.get(channel)
        if used is None:
            hear = partial(self._heard, channel)
            used = self._channels[channel] = Channel(
                self, channel, self._running(), self._keep(channel), self.crowds, hear
            )
        return used

    def _use_for_now(self, channel: str) -> "Channel":
        """The same, also for somebody who is not in it yet, and may never be."""
        used = self._use(channel)
        if not self._count(channel):
            self._linger(channel)
        return used

    def _linger(self, channel: str) -> None:
        used = self._channels.get(channel)
        if used is not None and channel not in self._lingering:
            seconds = LINGER_SECONDS if used.follower is None else LINGER_LOG_SECONDS
            loop = asyncio.get_running_loop()
            self._lingering[channel] = loop.call_later(seconds, self._leave_alone, channel)

    def _leave_alone(self, channel: str) -> None:
        del self._lingering[channel]
        if not self._count(channel):
            used = self._channels.pop(channel, None)
            if used is not None:
                used.drop()

    def listening(self, channel: str) -> "asyncio.Future[Any] | None":
        """Returns what to wait for, so that a newcomer to a channel gets what others say from then on; or None."""
        used = self._use_for_now(channel)
        return used.listening if used.listening is not None and not used.listening.done() else None

    # -- sending

    def broadcast(
        self,
        channel: str,
        message: Any,
        *,
        to: Connections | None = None,
        users: Any = None,
        exclude: Connections | None = None,
        compress: bool | None = None,
    ) -> int:
        """Send a message to the members of a channel, on all nodes. Returns how many were addressed here.

        In a channel with a log it is appended to that, and arrives when it comes back from the store, here as well; but
        a message that is not for all members is sent to those who are there now, and not kept. ``to``, ``users``,
        ``exclude`` and ``compress`` are those of a server without logs. Raises ValueError for a message to everybody in
        a `Latest` channel, which has to have a key: see `publish`; and for ``compress`` where a log keeps the message.
        """
        is_for_all = to is None and users is None and exclude is None
        if is_for_all and self._keep(channel) is not None:
            if compress is not None:
                raise ValueError("messages of a log are compressed by compression_threshold: leave compress out")
            self.store(channel, self.enveloped(channel, message))
            return self._count(channel)
        node = self._running()
        if node.is_alone:
            return Endpoint.broadcast(self, channel, message, to=to, users=users, exclude=exclude, compress=compress)
        payload = payload_of(message)
        if is_for_all and compress is None:
            count = Endpoint.broadcast(self, channel, message_of(payload))
            node.send(Subject("channel", self.path, channel), packed(node.key.id, payload))
            return count
        to, exclude, users = ids_of(to), ids_of(exclude), None if users is None else list(many(users))
        given = {"to": to, "users": users, "exclude": exclude, "compress": compress}
        about = {name: value for name, value in given.items() if value is not None}
        count = Endpoint.broadcast(self, channel, message_of(payload), **given)
        node.send(Subject("channel", self.path, channel), packed(node.key.id, payload, about))
        return count

    def _heard(self, channel: str, data: bytes) -> None:
        """A message to a channel came from another node."""
        node = self._running()
        sender, about, payload = unpacked(data)
        if sender == node.key.id:
            return
        if about is not None and "seen" in about:
            self._notify_here(channel, about["seen"], message_of(payload), about["exclude"], about["to_self"])
        else:
            Endpoint.broadcast(self, channel, message_of(payload), **(about or {}))

    def notify(
        self,
        channel: str,
        user: Hashable,
        message: Any,
        *,
        exclude: Connections | None = None,
        to_self: bool = True,
    ) -> int:
        """Send a message about a user to the members who may see that user, on all nodes: each asks ``can_see``."""
        node = self._running()
        if node.is_alone:
            return self._notify_here(channel, user, message, exclude, to_self)
        payload, exclude = payload_of(message), ids_of(exclude)
        count = self._notify_here(channel, user, message_of(payload), exclude, to_self)
        about = {"seen": user, "exclude": exclude, "to_self": to_self}
        node.send(Subject("channel", self.path, channel), packed(node.key.id, payload, about))
        return count

    def may_be_elsewhere(self, channel: str, user: Hashable) -> bool:
        """Returns whether a user is in a channel on another node, or may be, as it is not known who is there."""
        return self.crowds is not None and self.crowds.may_have(channel, user)

    # -- logs

    def keeps(self, channel: str) -> str | None:
        """Returns what a channel keeps: "history", "latest", or None."""
        keep = self._keep(channel)
        if keep is None:
            return None
        return "latest" if isinstance(keep, Latest) else "history"

    def _log(self, channel: str) -> LogName:
        keep = self._keep(channel)
        if keep is None:
            raise ValueError(f"channel {channel!r} keeps nothing: give its endpoint logs={{{channel!r}: History()}}")
        return LogName(self.path, channel, keep)

    def store(
        self, channel: str, message: Any, *, key: str | None = None, is_deletion: bool = False, id: str | None = None
    ) -> "asyncio.Future[Position]":
        """Append what members are to get, as it is, to a channel's log. The future is done when the store has it."""
        log = self._log(channel)
        if log.has_keys != (key is not None):
            raise ValueError(
                f"channel {channel!r} keeps the latest message of each key: publish with a key"
                if log.has_keys
                else f"channel {channel!r} keeps messages without keys: publish without one"
            )
        payload = b"" if is_deletion else payload_of(message)
        return self._running().append(log, payload, key=key, is_deletion=is_deletion, id=id)

    async def publish(self, channel: str, message: Any, *, key: str | None = None, id: str | None = None) -> Position:
        """Append a message to a channel's log and wait until the store has it. Returns its position.

        A second one with the same ``id`` is none. Raises ValueError for a channel without a log, for a ``key`` where
        there must be none, or none where there must be one; BackplaneError after ``backplane_timeout`` if nobody knows
        whether it is stored: then publish again with the same ``id``.
        """
        return await self.store(channel, self.enveloped(channel, message), key=key, id=id)

    async def delete(self, channel: str, key: str) -> Position:
        """Remove a key from a `Latest` channel, which its members are told. Returns the position of that."""
        return await self.store(channel, None, key=key, is_deletion=True)

    async def history(self, channel: str, since: Position | None = None, limit: int = 100) -> Page:
        """Returns up to ``limit`` entries after a position; without one the newest, in order.

        Where not all of them can be had, ``recovered`` is false, ``reason`` says why, and there are no entries. Raises
        ValueError for a channel without a log, BackplaneError where the store does not answer.
        """
        log, store = self._log(channel), self._running().store
        if since is None:
            read = await store.snapshot(log)
            records = read.records[max(len(read.records) - limit, 0) :]
        else:
            read = await store.read(log, since, limit)
            records = read.records
        is_whole = read.status == "ok"
        return Page([self._entry(record) for record in records], read.top, is_whole, None if is_whole else read.status)

    async def latest(self, channel: str) -> dict[str, Entry]:
        """Returns the newest message of each key, the oldest first. Raises ValueError where there are no keys."""
        log = self._log(channel)
        if not log.has_keys:
            raise ValueError(f"channel {channel!r} keeps messages without keys: see history()")
        read = await self._running().store.snapshot(log)
        return {str(record.key): self._entry(record) for record in read.records}

    def _entry(self, record: Record) -> Entry:
        message = None if record.payload is None else message_of(record.payload)
        contents = getattr(self.listener, "contents", None)
        if contents is not None and message is not None:
            message = contents(message)
        return Entry(record.position, record.key, message)

    async def clear(self, channel: str) -> Position:
        """Have a channel forget what it keeps. Its members are told, as are all who come back to it later.

        Returns the log's end. Raises ValueError for a channel without a log.
        """
        return await self._running().store.clear(self._log(channel))

    def messages(self, channel: str, records: Sequence[Record]) -> list[Any]:
        """Returns what members get of some records of a channel's log."""
        return self._use(channel).messages(records)

    def send_missed(self, channel: str, ws: WebSocket, missed: Missed) -> None:
        """Send to a connection what it has missed."""
        self._use(channel).send_missed(ws, missed)

    def _drained(self, ws: WebSocket) -> None:
        """A connection that lagged has read all that it was sent."""
        for channel in ws.channels:
            used = self._channels.get(channel)
            if used is not None:
                used.catch_up(ws)

    async def catch_up(self, channel: str, position: str | None, is_wanted: Callable[[], bool]) -> Missed | None:
        """Returns what a client has missed in a log since the position that it brings, or None if it has none.

        True at the moment that it returns. Waits for a store that is away, as long as ``is_wanted``; else returns None.
        """
        listening = self.listening(channel)
        if listening is not None:
            await asyncio.shield(listening)
        since = None if position is None else _parsed(position)
        while is_wanted():
            try:
                follower = self._use_for_now(channel).follower
                assert follower is not None
                return await follower.catch_up(since, self.options.resume_limit)
            except BackplaneError:
                await asyncio.sleep(1)
        return None


def keeper(logs: Mapping[str, Keep] | Callable[[str], Keep | None]) -> Callable[[str], Keep | None]:
    """Returns a function that tells what a channel keeps: by the first glob that matches, or as one was given."""
    if callable(logs):
        return lru_cache(REMEMBERED_CHANNELS)(logs)
    globs = [(compiled(translate(glob)).match, keep) for glob, keep in logs.items()]
    return lru_cache(REMEMBERED_CHANNELS)(
        lambda channel: next((keep for matches, keep in globs if matches(channel)), None)
    )


def _parsed(position: str) -> Position:
    try:
        return Position.parse(position)
    except ValueError:
        return NOWHERE
