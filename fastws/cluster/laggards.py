"""Who lags behind in a log of latest values, and what each of them is sent once it reads again."""

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator
from itertools import takewhile
from typing import Generic, NamedTuple, TypeVar

from ..backplane.base import Record

__all__ = ["EVERYTHING", "STEP", "Laggards", "Step"]

Connection = TypeVar("Connection", bound=Hashable)

STEP = 64 * 1024  # bytes
MOST_DELETED = 1000  # keys that are remembered as deleted; more of them if there are more values

EVERYTHING = -1  # the offset of whoever has nothing that is still good


class Step(NamedTuple):
    """What a laggard is sent next. With ``is_snapshot`` it first forgets all that it has; after the last step it has
    everything."""

    records: list[Record]
    is_snapshot: bool
    is_last: bool


class Laggards(Generic[Connection]):
    """The laggards of one log: for each the offset up to which it has everything.

    Of each key a laggard gets only the newest record, the oldest first, none twice, and not more than ``step`` bytes at
    once, where a record takes ``overhead`` bytes beside its payload. The owner has the table of all values, by key, in
    the order of their positions. Keys that were deleted are remembered here while anybody lags, but not more of them
    than there are values: past that, whoever has not been told begins anew.
    """

    def __init__(self, step: int = STEP, overhead: int = 128) -> None:
        self._step = step
        self._overhead = overhead
        self._offsets: dict[Connection, int] = {}
        self._snapshots: dict[Connection, int] = {}  # of those that get everything: the log's end when that began
        self._deleted: dict[str, Record] = {}
        self._forgotten = EVERYTHING  # the offset of the last deletion that is not remembered
        self._order: list[Record] = []  # by position; some are no longer the newest of their key

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._offsets))

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._offsets

    def skipped(self, connection: Connection, offset: int) -> bool:
        """A connection was passed over; it has everything up to an offset, or it lags already.

        Returns whether it begins to lag, so that the engine has to be asked to report it.
        """
        if connection in self._offsets:
            return False
        self._offsets[connection] = offset
        return True

    def deleted(self, record: Record, table: dict[str, Record]) -> None:
        """A key was deleted; the table may have it again by now. Whoever was passed over has been noted before."""
        if self._offsets:
            self._deleted.pop(str(record.key), None)
            self._deleted[str(record.key)] = record
            if len(self._deleted) > _most_deleted(table):
                self._forget_deleted(table)

    def drained(self, connection: Connection, table: dict[str, Record]) -> Step | None:
        """Returns what to send to a laggard that has read all it was sent; None if it does not lag."""
        offset = self._offsets.get(connection)
        if offset is None:
            return None
        self._extend_order(table)
        is_snapshot = offset == EVERYTHING or max(offset, self._snapshots.get(connection, offset)) < self._forgotten
        if is_snapshot:
            offset = EVERYTHING
            self._snapshots[connection] = max(self._end, self._forgotten)
        records, is_last = self._take(self._newest(offset, table, self._snapshots.get(connection, EVERYTHING)))
        if is_last:
            self.forget(connection)
        else:
            self._offsets[connection] = _offset(records[-1])
        return Step(records, is_snapshot, is_last)

    def forget(self, connection: Connection) -> None:
        """A connection has left the log's channel, or has caught up."""
        self._offsets.pop(connection, None)
        self._snapshots.pop(connection, None)
        if not self._offsets:
            self._forget_log()

    def restart(self) -> None:
        """The log begins anew: nothing that anybody has is good."""
        self._offsets = dict.fromkeys(self._offsets, EVERYTHING)
        self._snapshots.clear()
        self._forget_log()

    # -- the records in their order

    @property
    def _end(self) -> int:
        return _offset(self._order[-1]) if self._order else EVERYTHING

    def _extend_order(self, table: dict[str, Record]) -> None:
        """Append what came since the last time; now and then leave out what is not needed any more."""
        self._order += sorted([*_after(self._end, table), *_after(self._end, self._deleted)], key=_offset)
        if len(self._order) > 2 * (len(table) + len(self._deleted)) + MOST_DELETED:
            self._order = sorted([*table.values(), *self._deleted.values()], key=_offset)

    def _newest(self, offset: int, table: dict[str, Record], snapshot: int) -> Iterator[Record]:
        """Yields the records above an offset that are the newest of their key, without deletions before a snapshot."""
        for place in range(bisect_right(self._order, offset, key=_offset), len(self._order)):
            record = self._order[place]
            key = str(record.key)
            is_newest = table.get(key, self._deleted.get(key)) is record
            if is_newest and (record.payload is not None or _offset(record) > snapshot):
                yield record

    def _take(self, records: Iterable[Record]) -> tuple[list[Record], bool]:
        """Returns as many records as a step may hold, but at least one, and whether these are all."""
        taken: list[Record] = []
        size = 0
        for record in records:
            size += self._overhead + len(record.payload or b"")
            if size > self._step and taken:
                return taken, False
            taken.append(record)
        return taken, True

    # -- what is not needed any more

    def _forget_deleted(self, table: dict[str, Record]) -> None:
        """Forget that keys were deleted: of those that are there again, and if these are few, of the oldest half."""
        kept = [record for key, record in self._deleted.items() if key not in table]
        half = len(kept) // 2
        if half > _most_deleted(table) // 4:
            self._forgotten = _offset(kept[half - 1])
            kept = kept[half:]
        self._deleted = {str(record.key): record for record in kept}

    def _forget_log(self) -> None:
        self._deleted.clear()
        self._order.clear()
        self._forgotten = EVERYTHING


def _offset(record: Record) -> int:
    return record.position.offset


def _after(offset: int, records: dict[str, Record]) -> Iterator[Record]:
    """Returns those of the records, which are in order, that are above an offset, the newest first."""
    return takewhile(lambda record: _offset(record) > offset, reversed(records.values()))


def _most_deleted(table: dict[str, Record]) -> int:
    return max(MOST_DELETED, len(table))
