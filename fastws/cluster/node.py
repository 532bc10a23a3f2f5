"""A node: one server's half of what it has in common with others through a store."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

from ..backplane.base import Backplane, BackplaneError, LogName, NodeKey, Receiver, Subject
from ..config import Options
from ..logs import Position
from .follower import LogFollower, Member, Rings

__all__ = ["Node"]

logger = logging.getLogger("fastws.cluster")

TOPS_AT_ONCE = 100
SWEEP_SECONDS = 1.0
MOST_SWEPT = 256  # logs looked after in each sweep
PUBLISHED_SECONDS = 60.0  # for which a node answers for what it appended to logs that it does not follow
MOST_PUBLISHED = 10_000  # such logs


class Manager(Protocol):
    """What a node tells each of the server's managers."""

    def on_backplane(self, is_connected: bool) -> None:
        """The store is there (again), or gone."""

    def part(self) -> None:
        """The server has stopped."""


class Node:
    """Listens to subjects and follows logs for the managers of a server, and keeps up with the store.

    ``id`` is that of the server's run: ids of connections begin with it.
    """

    def __init__(self, id: str, store: Backplane, options: Options, *, is_alone: bool) -> None:
        self.key = NodeKey(id, 1)
        self.store = store
        self.options = options
        #: Whether nobody else can be on the store, so that plain messages need not be sent there.
        self.is_alone = is_alone
        #: "repaired": gaps in logs that nobody noticed; "gaps": those that clients were told of; "failed": appends.
        self.counts: Counter[str] = Counter()
        self.managers: list[Manager] = []
        self._rings = Rings(options.log_memory)
        self._followers: dict[LogName, LogFollower] = {}
        self._sweeping = 0
        self._published: OrderedDict[LogName, tuple[Position, float]] = OrderedDict()
        self._new_followers: dict[LogName, LogFollower] = {}
        self._new_receivers: dict[Subject, Receiver] = {}
        self._batch: asyncio.Future[None] | None = None  # of what is new in this turn of the loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._was_connected = False

    # -- starting and stopping

    async def start(self) -> None:
        """Connect to the store; where it is away, all that needs it waits."""
        options = self.options
        await self.store.start(
            self.key,
            self,
            prefix=options.prefix,
            timeout=options.backplane_timeout,
            buffer=options.backplane_buffer,
        )
        self.spawn(self._sweep())

    async def stop(self) -> None:
        """Let go of everything, and disconnect once what was said has left."""
        for task in list(self._tasks):
            task.cancel()
        for follower in self._followers.values():
            follower.stop()
        self._followers.clear()
        for manager in self.managers:
            manager.part()
        await self.store.stop()

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run something until it ends or the node stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the node failed", exc_info=task.exception())

    @property
    def stats(self) -> dict[str, Any]:
        """Counters since the start."""
        return {
            "connected": self.store.is_connected,
            "followed": len(self._followers),
            "log_bytes": self._rings.used,
            "lost": self.store.lost + self.counts["failed"],
            "repaired": self.counts["repaired"],
            "gaps": self.counts["gaps"],
        }

    # -- the store's connection

    def on_connected(self) -> None:
        """The store is there (again)."""
        self.spawn(self._reconcile())
        if not self._was_connected:
            self._was_connected = True
            self._tell_managers(True)

    def on_disconnected(self, reason: str) -> None:
        """The store is gone."""
        if self._was_connected:
            self._was_connected = False
            self._tell_managers(False)

    def on_gone(self, node: NodeKey) -> None:
        """A node has ended, as the store has seen."""

    def _tell_managers(self, is_connected: bool) -> None:
        for manager in self.managers:
            manager.on_backplane(is_connected)

    async def _reconcile(self) -> None:
        """Look up where all logs end that are followed here, and whether what this node appended is still there."""
        logs = list(self._followers)
        for first in range(0, len(logs), TOPS_AT_ONCE):
            await self._compare(logs[first : first + TOPS_AT_ONCE])
        too_old = time.monotonic() - PUBLISHED_SECONDS
        for log, (position, when) in list(self._published.items()):
            if when >= too_old and log not in self._followers:
                await self._prove(log, position)

    async def _compare(self, logs: list[LogName]) -> None:
        try:
            tops = await self.store.tops(logs)
        except BackplaneError:
            return  # it is gone again, or the next sweep comes
        for log, top in zip(logs, tops, strict=True):
            follower = self._followers.get(log)
            if follower is not None:
                follower.reconcile(top)

    async def _prove(self, log: LogName, position: Position) -> None:
        """If the store has lost what this node had appended, whoever comes back to the log has to know."""
        try:
            if (await self.store.read(log, position, 0)).status == "unknown":
                await self.store.broken(log, position)
        except BackplaneError:
            return

    async def _sweep(self) -> None:
        """A message that got lost without a trace is found here, a few logs at a time."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            logs = list(self._followers)
            if logs and self.store.is_connected:
                self._sweeping %= len(logs)
                await self._compare(logs[self._sweeping : self._sweeping + MOST_SWEPT])
                self._sweeping += MOST_SWEPT

    # -- what managers want

    def listen(self, subject: Subject, receive: Receiver) -> asyncio.Future[None]:
        """Have a receiver called with each payload; done when the store has heard of it, or is away."""
        self._new_receivers[subject] = receive
        return self._next_batch()

    def ignore(self, subjects: Iterable[Subject]) -> None:
        """Listen no more."""
        subjects = list(subjects)
        for subject in subjects:
            self._new_receivers.pop(subject, None)
        self.store.ignore(subjects)

    def follow(self, log: LogName, member: Member) -> LogFollower:
        """Follow a log for a member; there is one for each."""
        follower = LogFollower(log, self.store, self._rings, self._count)
        follower.member = member
        self._followers[log] = self._new_followers[log] = follower
        follower.followed = self._next_batch()
        return follower

    def unfollow(self, follower: LogFollower) -> None:
        """Follow no more."""
        self._followers.pop(follower.log, None)
        self._new_followers.pop(follower.log, None)
        follower.stop()
        self.store.unfollow([follower.log])

    def _count(self, what: str) -> None:
        self.counts[what] += 1

    def _next_batch(self) -> asyncio.Future[None]:
        """All that is new in one turn of the loop goes to the store together."""
        if self._batch is None:
            self._batch = self.spawn(self._begin_new())
        return self._batch

    async def _begin_new(self) -> None:
        self._batch = None
        receivers, self._new_receivers = self._new_receivers, {}
        followers, self._new_followers = self._new_followers, {}
        try:
            if receivers:
                await self.store.listen(receivers)
            if followers:
                await self.store.follow(followers)
        except BackplaneError:
            pass  # it listens once it is back, and on_connected has everything reconciled
        for follower in followers.values():
            if self._followers.get(follower.log) is follower:
                follower.start()

    def send(self, subject: Subject, payload: bytes) -> None:
        """Send to the other nodes that listen."""
        self.store.send(subject, payload)

    def append(
        self, log: LogName, payload: bytes, *, key: str | None = None, is_deletion: bool = False, id: str | None = None
    ) -> asyncio.Future[Position]:
        """Append to a log; done when the store has it. A failure is logged and counted."""
        stored = self.store.append(log, payload, key=key, is_deletion=is_deletion, id=id)
        if stored.done() and log in self._followers:
            return stored  # by the memory of this process
        stored.add_done_callback(lambda done: self._appended(log, done))
        return stored

    def _appended(self, log: LogName, done: asyncio.Future[Position]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self.counts["failed"] += 1
            logger.error("a message to %s of %s was not stored: %s", log.name, log.endpoint, error)
        elif log not in self._followers:
            self._published[log] = done.result(), time.monotonic()
            self._published.move_to_end(log)
            if len(self._published) > MOST_PUBLISHED:
                self._published.popitem(last=False)
