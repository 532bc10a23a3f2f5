"""One log on one node: it follows it once for all members, mends what was lost, and lets clients resume."""

import asyncio
import itertools
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from ..backplane.base import Backplane, BackplaneError, LogName, Read, Record
from ..logs import Position
from .backoff import Backoff

__all__ = ["LogFollower", "Member", "Missed", "Rings"]

logger = logging.getLogger("fastws.cluster")

MOST_KEPT = 1000  # batches that wait while a gap is being mended
MOST_MENDED = 10_000  # records that are read at once to mend one
RECORD_COST = 200  # bytes, about, of a record in a ring beside its payload


class Missed(NamedTuple):
    """What a client that comes back is told of a log, and sent."""

    position: Position
    recovered: bool
    reason: str | None
    records: Sequence[Record]
    is_snapshot: bool = False
    is_loss: bool = False
    """Whether it was the store that has lost something."""


class Member(Protocol):
    """Whoever stands behind a follower: the channel of an endpoint, or something of the node's own."""

    def on_records(self, records: Sequence[Record]) -> None:
        """The next records, in order, without a gap and none twice."""

    def on_begun(self, missed: Missed) -> None:
        """The log's thread was lost, or it was cleared: this is the truth from now on."""


class Rings:
    """The memory of all rings of a node: of recent records, for clients that come back."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._rings: OrderedDict[LogFollower, None] = OrderedDict()  # the longest unused first

    @property
    def used(self) -> int:
        """Bytes, about."""
        return self._used

    def charge(self, follower: "LogFollower", records: Iterable[Record], sign: int = 1) -> None:
        """Records were added to (or, with -1, taken from) a ring; where that is too much, the longest unused go."""
        self._used += sign * sum(cost(record) for record in records)
        if sign > 0:
            self._rings[follower] = None
            self._rings.move_to_end(follower)
            while self._used > self._most and self._rings:
                next(iter(self._rings)).shrink()

    def forget(self, follower: "LogFollower") -> None:
        """A ring is empty."""
        self._rings.pop(follower, None)


class LogFollower:
    """Follows one log for as long as somebody here wants it.

    ``cursor`` is the position up to which the member was told everything. A record is taken only if it continues the
    cursor; else the log is read from there, before anybody sees what came later.
    """

    def __init__(self, log: LogName, store: Backplane, rings: Rings, count: Callable[[str], None]) -> None:
        self.log = log
        self.cursor: Position | None = None  # None: not followed yet
        self.member: Member | None = None
        self.followed: asyncio.Future[None] | None = None  # done when the store has heard of it, and it has begun
        #: Of a log with keys: all values there are, in the order of their positions.
        self.table: OrderedDict[str, Record] = OrderedDict()
        self._store = store
        self._rings = rings
        self._count = count
        self._ring: deque[Record] = deque()
        self._base: Position | None = None  # just before the first of the ring
        self._kept: list[tuple[Position, Sequence[Record]]] | None = None  # not None: being mended
        self._mending: asyncio.Task[None] | None = None
        self._reads: dict[tuple[Position | None, int], asyncio.Task[Read]] = {}  # under way, shared by whoever asks
        self._is_over = False
        self._has_lost = False  # so another node has found

    @property
    def is_ready(self) -> bool:
        """Whether all is known up to the cursor."""
        return self.cursor is not None and self._kept is None

    # -- from the store

    def on_records(self, previous: Position, records: Sequence[Record]) -> None:
        """Records came: the next ones, some that are known, or some after a gap."""
        if self._kept is not None or self.cursor is None:
            self._keep(previous, records)
        elif previous == self.cursor:
            self._take(records)
        elif not (self._is_in_ring(records[-1].position) or self._takes_rest(records)):
            self.mend()
            self._keep(previous, records)

    def on_begun(self, position: Position, reason: str) -> None:
        """The log begins anew."""
        if self.cursor is None or position == self.cursor:
            return
        self._has_lost |= reason != "cleared"
        if self._kept is not None:
            self._kept.clear()  # the store is read again in any case
        elif self.log.has_keys and reason != "cleared":
            self.mend()  # its values are still there
        else:
            self.table.clear()
            self._restart(Missed(position, False, reason, ()))

    # -- what was lost

    def start(self) -> asyncio.Task[None]:
        """Begin to follow: find the log's end, and of a log with keys all values. Tried until the store answers."""
        return self.mend()

    def stop(self) -> None:
        """Nobody wants it any more."""
        self._is_over = True
        if self._mending is not None:
            self._mending.cancel()
        for task in self._reads.values():
            task.cancel()
        self._drop_ring()

    def mend(self) -> asyncio.Task[None]:
        """Read what is missing; whatever comes meanwhile waits."""
        if self._mending is None:
            self._kept = self._kept or []
            self._mending = asyncio.get_running_loop().create_task(self._mend())
            self._mending.add_done_callback(_log_failure)
        return self._mending

    def reconcile(self, top: Position) -> None:
        """The store's end of the log was looked up: if it is not here, something was lost, or is on its way."""
        if self.is_ready and top != self.cursor:
            self.mend()

    def _keep(self, previous: Position, records: Sequence[Record]) -> None:
        if self._kept is None:
            self._kept = []
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()  # the gap that this leaves is found after the read
        self._kept.append((previous, records))

    async def _mend(self) -> None:
        backoff = Backoff()
        while self._kept is not None:
            try:
                await (self._find_end() if self.cursor is None else self._read_on(self.cursor))
            except BackplaneError:
                await backoff.pause()
            else:
                self._take_kept()
        self._mending = None

    def _take_kept(self) -> None:
        """Mended; what came meanwhile follows by the same rule, and may leave the next gap.

        The store has just said that the cursor is good, so what is not above it is old.
        """
        kept, self._kept = self._kept or [], None
        assert self.cursor is not None
        for done, (previous, records) in enumerate(kept):
            if previous == self.cursor:
                self._take(records)
            elif records[-1].position.offset > self.cursor.offset and not self._takes_rest(records):
                self._kept = kept[done:]
                return

    async def _find_end(self) -> None:
        read = await (self._store.snapshot(self.log) if self.log.has_keys else self._store.read(self.log, None, 0))
        self.table = OrderedDict((str(record.key), record) for record in read.records)
        self._drop_ring()
        self.cursor = self._base = read.top

    async def _read_on(self, cursor: Position) -> None:
        read = await self._store.read(self.log, cursor, MOST_MENDED)
        if read.status == "ok":
            if read.records:
                self._count("repaired")
            self._take(read.records)
            self.cursor = read.top
            return
        if read.status == "unknown":
            await self._be_lost(cursor)
        else:
            self._count("gaps")
            await self._begin_anew("gap")

    async def _be_lost(self, cursor: Position) -> None:
        """The store has not what was seen: whoever follows the log, or comes back to it, has to know."""
        await self._store.broken(self.log, cursor)
        self._count("gaps")
        await self._begin_anew("unknown")

    async def _begin_anew(self, reason: str) -> None:
        await self._find_end()
        assert self.cursor is not None
        is_loss, self._has_lost = self._has_lost or reason == "unknown", False
        if self.log.has_keys:
            self._restart(self._snapshot()._replace(is_loss=is_loss))
        else:
            self._restart(Missed(self.cursor, False, reason, ()))

    def _restart(self, missed: Missed) -> None:
        self._drop_ring()
        self.cursor = self._base = missed.position
        if self.member is not None and not self._is_over:
            self.member.on_begun(missed)

    # -- taking

    def _takes_rest(self, records: Sequence[Record]) -> bool:
        """Take those of some records that continue the cursor, if the first of them are known. Returns whether."""
        for number, record in enumerate(records, 1):
            if record.position == self.cursor:
                self._take(records[number:])
                return True
        return False

    def _is_in_ring(self, position: Position) -> bool:
        return any(record.position == position for record in reversed(self._ring))

    def _take(self, records: Sequence[Record]) -> None:
        """The next records: into the ring, then to the member."""
        if not records or self._is_over:
            return
        self.cursor = records[-1].position
        self._ring.extend(records)
        most = self.log.keep.size
        old = [self._ring.popleft() for _ in range(len(self._ring) - most)]
        if old:
            self._base = old[-1].position
            self._rings.charge(self, old, -1)
        for record in records if self.log.has_keys else ():
            self.table.pop(str(record.key), None)
            if record.payload is not None:
                self.table[str(record.key)] = record
        if self.member is not None:
            self.member.on_records(records)
        self._rings.charge(self, records)

    def shrink(self) -> None:
        """Give back half of the ring's memory."""
        old = [self._ring.popleft() for _ in range((len(self._ring) + 1) // 2)]
        if old:
            self._base = old[-1].position
            self._rings.charge(self, old, -1)
        if not self._ring:
            self._rings.forget(self)

    def _drop_ring(self) -> None:
        self._rings.charge(self, self._ring, -1)
        self._rings.forget(self)
        self._ring.clear()

    # -- coming back

    async def catch_up(self, since: Position | None, limit: int) -> Missed:
        """Returns what a client has missed since a position; None where it has none.

        It is true at the moment that this returns: whoever joins without waiting any more gets all that comes later.
        Raises BackplaneError where the store has to be asked and does not answer.
        """
        while True:
            if self.followed is not None:
                await asyncio.shield(self.followed)
                self.followed = None
            if self._mending is not None:
                await asyncio.shield(self._mending)
            missed = self._from_memory(since, limit)
            if missed is not None:
                return missed
            assert since is not None
            read = await self._read(since, limit)
            if self.is_ready:
                missed = self._joined(read, since, limit)
                if missed is not None:
                    return missed
                self.mend()

    def _from_memory(self, since: Position | None, limit: int) -> Missed | None:
        """The answer, if the store need not be asked."""
        assert self.cursor is not None
        if since == self.cursor:
            return Missed(self.cursor, True, None, ())
        if since is None:
            return self._snapshot() if self.log.has_keys else Missed(self.cursor, False, "new", ())
        records = self._after(since)
        return None if records is None else self._given(records, limit)

    def _given(self, records: Sequence[Record], limit: int) -> Missed:
        assert self.cursor is not None
        if self.log.has_keys:
            records = sorted({record.key: record for record in records}.values())
        if len(records) <= limit:
            return Missed(self.cursor, True, None, records)
        return self._snapshot() if self.log.has_keys else Missed(self.cursor, False, "too_many", ())

    def _snapshot(self) -> Missed:
        assert self.cursor is not None
        return Missed(self.cursor, True, None, tuple(self.table.values()), is_snapshot=True)

    def _after(self, since: Position) -> list[Record] | None:
        """What the ring has after a position; None if that is not there."""
        if since == self._base:
            return list(self._ring)
        for back, record in enumerate(reversed(self._ring)):
            if record.position.offset <= since.offset:
                if record.position != since:
                    return None
                return list(itertools.islice(self._ring, len(self._ring) - back, None))
        return None

    def _joined(self, read: Read, since: Position, limit: int) -> Missed | None:
        """What the store has, and then what came here meanwhile; None if the two do not meet."""
        assert self.cursor is not None
        if read.status != "ok":
            return self._snapshot() if self.log.has_keys else Missed(self.cursor, False, read.status, ())
        if read.top == self.cursor:
            return self._given(read.records, limit)
        if read.top.offset > self.cursor.offset:  # what is on its way here will be told to everybody
            known = [record for record in read.records if record.position.offset <= self.cursor.offset]
            meets = since.offset < self.cursor.offset and (self.log.has_keys or _end(known) == self.cursor)
            return self._given(known, limit) if meets else None
        later = self._after(read.top)
        return None if later is None else self._given([*read.records, *later], limit)

    async def _read(self, since: Position, limit: int) -> Read:
        """Read from the store; those that ask for the same at the same time share it."""
        task = self._reads.get((since, limit))
        if task is None:
            task = asyncio.get_running_loop().create_task(self._store.read(self.log, since, limit))
            self._reads[since, limit] = task
            task.add_done_callback(lambda _: self._reads.pop((since, limit), None))
        return await asyncio.shield(task)


def cost(record: Record) -> int:
    """Returns the memory of a record in bytes, about."""
    return RECORD_COST + len(record.payload or b"")


def _end(records: Sequence[Record]) -> Position | None:
    return records[-1].position if records else None


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("a log could not be followed", exc_info=task.exception())
