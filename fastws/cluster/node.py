"""A node: one server's half of what it has in common with others through a store."""

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from .. import __version__
from ..backplane.base import Backplane, BackplaneError, LogName, NodeKey, Receiver, Subject, UserName
from ..config import Options
from ..logs import Position
from .directory import Directory
from .follower import LogFollower, Member, Rings
from .kicks import KickFollower, Kicks, kicks_log
from .members import EVERYBODY, Members
from .names import user_named
from .payloads import Relayed, unpacked

__all__ = ["Node"]

logger = logging.getLogger("fastws.cluster")

TOPS_AT_ONCE = 100
SWEEP_SECONDS = 1.0
MOST_SWEPT = 256  # logs looked after in each sweep
PUBLISHED_SECONDS = 60.0  # for which a node answers for what it appended to logs that it does not follow
MOST_PUBLISHED = 10_000  # such logs
MEET_SECONDS = 2.0  # that a start waits until kicks are followed

AnyFollower = TypeVar("AnyFollower", bound=LogFollower)


class Manager(Protocol):
    """What a node tells each of the server's managers."""

    def on_backplane(self, is_connected: bool) -> None:
        """The store is there (again), or gone."""

    def part(self) -> None:
        """The server has stopped."""


class Endpoint(Protocol):
    """What a node tells a manager that has users and connections."""

    @property
    def path(self) -> str:
        """Its path template."""

    @property
    def connection_count(self) -> int:
        """Connections that are open."""

    def tell_of_user(self, handler: str, user: str | int) -> None:
        """Call a handler of the listener, where no connection here is the reason."""

    def hear(self, relayed: Relayed) -> None:
        """Send a message from another node to connections here."""

    def obey(self, do: str, arguments: list[Any]) -> None:
        """Do what a kick says to those who are here."""

    def let_go(self) -> None:
        """Close all connections."""


class Node:
    """Listens to subjects and follows logs for the managers of a server, and keeps up with the store.

    ``id`` is that of the server's run: ids of connections begin with it.
    """

    def __init__(self, id: str, store: Backplane, options: Options, *, is_alone: bool, address: str = "") -> None:
        self.key = NodeKey(id, 1)
        self.store = store
        self.options = options
        #: Whether nobody else can be on the store, so that plain messages need not be sent there.
        self.is_alone = is_alone
        #: "repaired": gaps in logs that nobody noticed; "gaps": those that clients were told of; "failed": appends.
        self.counts: Counter[str] = Counter()
        self.managers: list[Manager] = []
        self.members = Members(self, address, __version__, self._count_connections)
        self.directory = self.undertaker = Directory(store, self.members, self.spawn, self._tell_of_user)
        self._endpoints: dict[str, Endpoint] = {}
        self._kicks: dict[str, Kicks] = {}  # by endpoint
        self._kick_followers: list[KickFollower] = []
        self._rings = Rings(options.log_memory)
        self._followers: dict[LogName, LogFollower] = {}
        self._sweeping = 0
        self._published: OrderedDict[LogName, tuple[Position, float]] = OrderedDict()
        self._new_followers: dict[LogName, LogFollower] = {}
        self._new_receivers: dict[Subject, Receiver] = {}
        self._batch: asyncio.Future[None] | None = None  # of what is new in this turn of the loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._was_connected = False
        self._has_met = False
        self._appending: set[asyncio.Future[Position]] = set()

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
        if not self.is_alone:
            await self._meet()
            self._has_met = True

    async def _meet(self) -> None:
        """Hear what the others say from now on, and be known to them, before anybody connects; or go on without."""
        heard = [self.listen(subject, self._hear) for subject in (EVERYBODY, Subject("node", "", self.key.id))]
        for kicks in self._kicks.values():
            follower = self.follow(kicks.log, kicks, KickFollower)
            follower.kicks = kicks
            self._kick_followers.append(follower)
        if self.store.is_connected:
            followed = [follower.catch_up(None, 0) for follower in self._kick_followers]
            with contextlib.suppress(BackplaneError, TimeoutError):
                async with asyncio.timeout(MEET_SECONDS):
                    await asyncio.gather(*heard, *followed)
        await self.members.start()
        for follower in self._kick_followers:
            follower.is_serving = True

    def leave(self) -> None:
        """The server begins to stop: users have time to come back to other nodes."""
        self.directory.leave()

    async def stop(self) -> None:
        """Let go of everything, and disconnect once what was said has left."""
        if self._has_met:
            self._has_met = False
            await self.directory.stop()
            try:
                await self.flush()
            except BackplaneError as error:
                logger.error("what was said last may be lost: %s", error)
            await self.members.stop()
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
            "nodes": len(self.members.nodes),
            "connected": self.store.is_connected,
            "followed": len(self._followers),
            "log_bytes": self._rings.used,
            "lost": self.store.lost,
            "failed": self.counts["failed"],
            "repaired": self.counts["repaired"],
            "gaps": self.counts["gaps"],
        }

    # -- the store's connection

    def on_connected(self) -> None:
        """The store is there (again)."""
        self.spawn(self._reconcile())
        if self._has_met:
            self.members.on_connected()
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
        self.members.on_gone(node)

    # -- other nodes

    def add(self, endpoint: Endpoint) -> Kicks:
        """One more endpoint, before the start. Returns how its kicks are said."""
        path = endpoint.path
        self._endpoints[path] = endpoint
        kicks = self._kicks[path] = Kicks(kicks_log(path), self.store, self.key.id, endpoint, self.spawn)
        return kicks

    def _count_connections(self) -> int:
        return sum(endpoint.connection_count for endpoint in self._endpoints.values())

    def _tell_of_user(self, handler: str, user: UserName) -> None:
        endpoint = self._endpoints.get(user.endpoint)
        if endpoint is not None:
            endpoint.tell_of_user(handler, user_named(user.name))

    def _hear(self, data: bytes) -> None:
        """Another node says something to this one, or to all."""
        relayed = unpacked(data)
        about = relayed.about or {}
        if relayed.node == self.key.id:
            return
        if about.get("kind") != "direct":
            self.members.hear(relayed.node, about)
        elif about.get("endpoint") in self._endpoints:
            self._endpoints[about["endpoint"]].hear(relayed)

    async def on_beat(self) -> None:
        """The store has answered: see whether a kick is missing."""
        await self._compare([follower.log for follower in self._kick_followers])

    def on_cut_off(self) -> None:
        """The store has not answered for a lease."""
        if self.options.degraded == "close":
            for endpoint in self._endpoints.values():
                endpoint.let_go()

    async def catch_up(self) -> None:
        """Carry out the kicks that were said meanwhile."""
        await asyncio.gather(*[asyncio.shield(follower.mend()) for follower in self._kick_followers])

    async def flush(self) -> None:
        """Wait until the store has all that this node was given; raises BackplaneError."""
        try:
            async with asyncio.timeout(self.options.backplane_timeout):
                appended = [asyncio.shield(stored) for stored in self._appending]
                await asyncio.gather(*appended, *[kicks.flush() for kicks in self._kicks.values()])
        except TimeoutError:
            raise BackplaneError(f"the store has not answered for {self.options.backplane_timeout:g} s") from None

    def _tell_managers(self, is_connected: bool) -> None:
        for manager in self.managers:
            manager.on_backplane(is_connected)

    async def _reconcile(self) -> None:
        """Look up where all logs end that are followed here, and whether what this node appended is still there."""
        logs = list(self._followers)
        with contextlib.suppress(BackplaneError):  # it is gone again
            for first in range(0, len(logs), TOPS_AT_ONCE):
                await self._compare(logs[first : first + TOPS_AT_ONCE])
        too_old = time.monotonic() - PUBLISHED_SECONDS
        for log, (position, when) in list(self._published.items()):
            if when >= too_old and log not in self._followers:
                await self._prove(log, position)

    async def _compare(self, logs: list[LogName]) -> None:
        """Look up where logs end, and have whatever is missing here read; raises BackplaneError."""
        tops = await self.store.tops(logs) if logs else []
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
                with contextlib.suppress(BackplaneError):  # the next sweep comes
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

    def follow(
        self,
        log: LogName,
        member: Member,
        kind: Callable[..., AnyFollower] = LogFollower,  # type: ignore[assignment]
    ) -> AnyFollower:
        """Follow a log for a member; there is one for each."""
        follower = kind(log, self.store, self._rings, self._count)
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
        self._appending.add(stored)
        stored.add_done_callback(lambda done: self._appended(log, done))
        return stored

    def _appended(self, log: LogName, done: asyncio.Future[Position]) -> None:
        self._appending.discard(done)
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
