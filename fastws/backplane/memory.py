"""The store of one process: what a server has without a backplane, and what the hub of several workers serves."""

import asyncio
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence

from ..logs import Position
from .base import (
    Beat,
    Follower,
    LogName,
    NodeKey,
    NodeState,
    Observer,
    Read,
    Receiver,
    Record,
    Status,
    Subject,
    UserName,
)

__all__ = ["Memory", "MemoryLog", "MemoryStore"]

MOST_IDS = 1000  # of records, by which a second one with the same id is known
REMEMBERED = 24 * 3600.0  # seconds that the end of a log is known at least after its last record
SWEEP = 10.0  # seconds between looks for logs whose time is over


class MemoryLog:
    """One log: its records (of one with keys, which keys have changed), and where this life of it began."""

    __slots__ = ("base", "ids", "log", "records", "top", "touched", "values")

    def __init__(self, log: LogName, base: Position, now: float) -> None:
        self.log = log
        self.values: OrderedDict[str, Record] = OrderedDict()  # by key, the oldest first
        self.begin(base)
        self.touched = now

    def begin(self, base: Position) -> None:
        """Begin anew; the values of keys stay, if there are any."""
        self.base = self.top = base
        self.records: deque[Record] = deque()  # one more than is kept: a position just before them can be proven
        self.ids: OrderedDict[str, Position] = OrderedDict()

    def expire(self) -> None:
        """Nobody has said anything for the log's time: it keeps nothing but where it ended."""
        self.records.clear()
        self.values.clear()
        self.ids.clear()
        self.base = self.top

    def append(self, record: Record, id: str | None) -> None:
        """Append a record; it continues the top."""
        self.top = record.position
        self.records.append(record)
        if len(self.records) > self.log.keep.size + 1:
            self.records.popleft()
        if record.key is not None:
            self.values.pop(record.key, None)
            if record.payload is not None:
                self.values[record.key] = record
        if id:
            self.ids[id] = record.position
            if len(self.ids) > MOST_IDS:
                self.ids.popitem(last=False)

    def read(self, since: Position, limit: int) -> Read:
        """Returns what came after a position."""
        if since == self.top:
            return Read("ok", self.top, ())
        missing = self.top.offset - since.offset
        status = self._status(since, missing)
        if status != "ok":
            return Read(status, self.top, ())
        records = list(itertools.islice(self.records, len(self.records) - missing, None))
        if self.log.has_keys:
            newest = {record.key: record for record in records}
            records = sorted(newest.values())
        return Read("ok", self.top, records) if len(records) <= limit else Read("too_many", self.top, ())

    def _status(self, since: Position, missing: int) -> Status:
        """Whether a position is that of a record here, or just before all of this life's."""
        if missing <= 0:
            return "unknown"
        if missing < len(self.records):
            return "ok" if self.records[-missing - 1].position == since else "unknown"
        if missing == len(self.records) and since == self.base:
            return "ok"
        return "trimmed"

    def has(self, seen: Position) -> bool:
        """Returns whether a position is of this life, as far as can be told, or one that this life has left behind.

        So of many nodes that miss a record only the first begins the log anew.
        """
        if seen.offset <= self.base.offset or seen == self.top:
            return True
        return self._status(seen, self.top.offset - seen.offset) != "unknown"

    def snapshot(self) -> Read:
        """Returns the newest records."""
        if self.log.has_keys:
            return Read("ok", self.top, list(self.values.values()))
        first = max(len(self.records) - self.log.keep.size, 0)
        return Read("ok", self.top, list(itertools.islice(self.records, first, None)))


class MemoryStore:
    """Logs, users and nodes; and who listens to what. `Memory` is how one node uses it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tag = 0
        self._swept = clock()
        self._logs: dict[tuple[str, str], MemoryLog] = {}
        self._followers: dict[tuple[str, str], dict[object, Follower]] = {}
        self._receivers: dict[Subject, dict[object, Receiver]] = {}
        self._users: dict[UserName, dict[NodeKey, None]] = {}
        self._holdings: dict[NodeKey, dict[UserName, None]] = {}
        self._nodes: dict[NodeKey, NodeState] = {}
        self._buriers: dict[NodeKey, NodeKey] = {}  # of the dead whose users are being released
        self.gone: dict[NodeKey, None] = {}  # nodes that ended without a word, until somebody buries them

    # -- messages

    def send(self, subject: Subject, payload: bytes, sender: object) -> None:
        """Call all receivers of a subject but the sender's."""
        receivers = self._receivers.get(subject)
        for owner, receive in list(receivers.items()) if receivers else ():
            if owner is not sender:
                receive(payload)

    def listen(self, subject: Subject, receive: Receiver, owner: object) -> None:
        """Have a receiver called."""
        self._receivers.setdefault(subject, {})[owner] = receive

    def ignore(self, subject: Subject, owner: object) -> None:
        """Listen no more."""
        _discard(self._receivers, subject, owner)

    # -- logs

    def log(self, log: LogName) -> MemoryLog:
        """Returns a log, made now if there was none."""
        self._sweep()
        place = log.endpoint, log.name
        found = self._logs.get(place)
        if found is None:
            found = self._logs[place] = MemoryLog(log, Position(0, self._now()), self._clock())
        return found

    def append(self, log: LogName, payload: bytes, key: str | None, is_deletion: bool, id: str | None) -> Position:
        """Append a record and tell whoever follows."""
        found = self.log(log)
        if id and id in found.ids:
            return found.ids[id]
        previous = found.top
        record = Record(Position(previous.offset + 1, self._now()), key, None if is_deletion else payload)
        found.append(record, id)
        found.touched = self._clock()
        for follower in self._following(log):
            follower.on_records(previous, (record,))
        return record.position

    def follow(self, log: LogName, follower: Follower, owner: object) -> None:
        """Have a follower told of each record."""
        self.log(log)
        self._followers.setdefault((log.endpoint, log.name), {})[owner] = follower

    def unfollow(self, log: LogName, owner: object) -> None:
        """Follow no more."""
        _discard(self._followers, (log.endpoint, log.name), owner)

    def begin(self, log: LogName, reason: str, seen: Position | None = None) -> Position:
        """Begin a log anew and tell whoever follows; its values stay if ``seen``, which was lost, is given."""
        found = self.log(log)
        if seen is not None and found.has(seen):
            return found.top
        if seen is None:
            found.values.clear()
        found.begin(Position(max(found.top.offset, 0 if seen is None else seen.offset), self._now()))
        found.touched = self._clock()
        for follower in self._following(log):
            follower.on_begun(found.top, reason)
        return found.top

    def _following(self, log: LogName) -> list[Follower]:
        return list(self._followers.get((log.endpoint, log.name), {}).values())

    def _now(self) -> int:
        """The time in µs; never the same twice, so that a tag tells entries apart."""
        self._tag = max(self._tag + 1, int(self._clock() * 1e6))
        return self._tag

    def _sweep(self) -> None:
        """Forget what was not touched for its time; whoever is followed stays."""
        now = self._clock()
        if now - self._swept < SWEEP:
            return
        self._swept = now
        for place, found in list(self._logs.items()):
            idle = now - found.touched
            if idle > found.log.keep.ttl:
                found.expire()
                if idle > max(found.log.keep.ttl, REMEMBERED) and place not in self._followers:
                    del self._logs[place]

    # -- users and nodes

    def claim(self, user: UserName, node: NodeKey) -> list[NodeKey]:
        """A node has a user. Returns who else has."""
        nodes = self._users.setdefault(user, {})
        nodes[node] = None
        self._holdings.setdefault(node, {})[user] = None
        return [other for other in nodes if other != node]

    def release(self, user: UserName, node: NodeKey) -> list[NodeKey]:
        """A node has a user no more. Returns who still has."""
        _discard(self._users, user, node)
        _discard(self._holdings, node, user)
        return self.find(user)

    def find(self, user: UserName) -> list[NodeKey]:
        """Returns which nodes have a user."""
        return list(self._users.get(user, ()))

    def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns the users of a node."""
        return list(self._holdings.get(node, ()))

    def beat(self, node: NodeKey, info: bytes) -> Beat:
        """Count a node's beats."""
        before = self._nodes.get(node)
        self._nodes[node] = NodeState(1 if before is None else before.beats + 1, info)
        return Beat(dict(self._nodes), before is not None)

    def bury(self, node: NodeKey, beats: int, by: NodeKey) -> list[NodeKey]:
        """Take a node for dead; returns whose users are to be released by the caller."""
        if node in self.gone:
            del self.gone[node]
        elif node in self._nodes and self._nodes[node].beats == beats:
            del self._nodes[node]
        else:
            return []
        jobs = [node, *(dead for dead, burier in self._buriers.items() if burier == node)]
        self._buriers.update(dict.fromkeys(jobs, by))
        return jobs

    def buried(self, node: NodeKey) -> None:
        """All is released."""
        self._buriers.pop(node, None)

    def end(self, node: NodeKey) -> None:
        """A node ended that did not `leave`: if it had anything, it is gone until somebody buries it."""
        if self._nodes.pop(node, None) or node in self._holdings or node in self._buriers.values():
            self.gone[node] = None

    def leave(self, node: NodeKey) -> None:
        """A node stops."""
        self._nodes.pop(node, None)


class Memory:
    """A `Backplane` within one process; nodes that are given one store are one server."""

    url = "memory://"
    is_connected = True
    lost = 0

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self._node = NodeKey("", 0)
        self._listened: set[Subject] = set()
        self._followed: set[LogName] = set()

    async def start(self, node: NodeKey, observer: Observer, *, prefix: str, timeout: float, buffer: int) -> None:
        """Begin."""
        self._node = node
        observer.on_connected()

    async def stop(self) -> None:
        """End; what is in the store stays."""
        self.ignore(list(self._listened))
        self.unfollow(list(self._followed))

    def rename(self, node: NodeKey) -> None:
        """The node goes on under its next incarnation."""
        self._node = node

    def send(self, subject: Subject, payload: bytes) -> None:
        """Send to the other nodes that listen."""
        self.store.send(subject, payload, self)

    async def listen(self, receivers: Mapping[Subject, Receiver]) -> None:
        """Have receivers called."""
        for subject, receive in receivers.items():
            self._listened.add(subject)
            self.store.listen(subject, receive, self)

    def ignore(self, subjects: Collection[Subject]) -> None:
        """Listen no more."""
        for subject in subjects:
            self._listened.discard(subject)
            self.store.ignore(subject, self)

    def append(
        self, log: LogName, payload: bytes, *, key: str | None = None, is_deletion: bool = False, id: str | None = None
    ) -> asyncio.Future[Position]:
        """Append a record; followers are told before this returns."""
        done: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        done.set_result(self.store.append(log, payload, key, is_deletion, id))
        return done

    async def follow(self, followers: Mapping[LogName, Follower]) -> None:
        """Have followers told."""
        for log, follower in followers.items():
            self._followed.add(log)
            self.store.follow(log, follower, self)

    def unfollow(self, logs: Collection[LogName]) -> None:
        """Follow no more."""
        for log in logs:
            self._followed.discard(log)
            self.store.unfollow(log, self)

    async def read(self, log: LogName, since: Position | None, limit: int) -> Read:
        """Returns what came after a position."""
        found = self.store.log(log)
        return Read("ok", found.top, ()) if since is None else found.read(since, limit)

    async def snapshot(self, log: LogName) -> Read:
        """Returns the newest records."""
        return self.store.log(log).snapshot()

    async def tops(self, logs: Sequence[LogName]) -> list[Position]:
        """Returns the ends of logs."""
        return [self.store.log(log).top for log in logs]

    async def broken(self, log: LogName, seen: Position) -> Position:
        """Begin a log anew if it has not the record seen."""
        return self.store.begin(log, "unknown", seen)

    async def clear(self, log: LogName) -> Position:
        """Begin a log anew, empty."""
        return self.store.begin(log, "cleared")

    async def claim(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """This node has these users."""
        return [self.store.claim(user, self._node) for user in users]

    async def release(self, users: Sequence[UserName], node: NodeKey | None = None) -> list[list[NodeKey]]:
        """A node has these users no more."""
        return [self.store.release(user, node or self._node) for user in users]

    async def find(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """Returns which nodes have each user."""
        return [self.store.find(user) for user in users]

    async def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns the users of a node."""
        return self.store.holdings(node)

    def route(self, users: Sequence[UserName], payload: bytes) -> None:
        """Send once to each other node that has any of the users."""
        nodes = dict.fromkeys(node.id for user in users for node in self.store.find(user) if node.id != self._node.id)
        for name in nodes:
            self.send(Subject("node", "", name), payload)

    async def beat(self, info: bytes) -> Beat:
        """Count this node's beats."""
        return self.store.beat(self._node, info)

    async def bury(self, node: NodeKey, beats: int) -> list[NodeKey]:
        """Take a node for dead."""
        return self.store.bury(node, beats, self._node)

    async def buried(self, node: NodeKey) -> None:
        """All of a dead node is released."""
        self.store.buried(node)

    async def leave(self) -> None:
        """This node stops."""
        self.store.leave(self._node)


def _discard(table: dict, place: object, member: object) -> None:  # type: ignore[type-arg]
    members = table.get(place)
    if members is not None:
        members.pop(member, None)
        if not members:
            del table[place]
