"""Logs in JetStream. One record is one message; the server publishes what it has stored, and says what was before it.

Whether a position is of a log is seen by the message at that sequence. Where a log began is a message, too: all before
it is removed by it.
"""

import asyncio
import hashlib
import itertools
import secrets
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ...logs import Position
from ..base import BackplaneError, Follower, LogName, Read, Record
from .following import Following
from .jetstream import WRONG_LAST, Ack, JetStream, Message, Rejected, Stored, Stream
from .lives import Life, Lives
from .marks import ALONE, DELETION, FIRST, ONCE, RECORD, mark, parse, position_of, record_of
from .names import Names, header
from .values import Values

__all__ = ["Logs"]

KNOWN = 64  # positions of a read that are remembered of a followed log
PART = 10_000  # messages that are stored at once to use up sequences
MOST_FILLED = 1_000_000  # sequences that are used up so; beyond that all of the stream begins anew
TRIES = 20
MOST_SEQUENCE = 1 << 62  # clients may send anything as a position
MOST_HEADERS = 1000  # bytes, without a key


class New(NamedTuple):
    """A record that is to be appended."""

    log: LogName
    payload: bytes
    key: str | None
    what: str
    id: str | None
    once: str
    """What is stored with it once only, within the stream."""
    tag: int
    deadline: float


class Logs:
    """All logs of one prefix."""

    def __init__(self, jet: JetStream, names: Names, replicas: int) -> None:
        self._jet, self._names, self._replicas = jet, names, replicas
        self._lives = Lives(jet, names)
        self._values = Values(jet, names, self._lives)
        self._streams: dict[str, Stream] = {}
        self._followed: dict[LogName, Following] = {}
        self._queues: dict[LogName, deque[tuple[New, asyncio.Future[Position]]]] = {}
        self._nonce = secrets.token_hex(6)
        self._last_tag = 0

    def _stream(self, log: LogName) -> Stream:
        name = self._names.stream(log)
        stream = self._streams.get(name)
        if stream is None:
            keep = log.keep
            stream = Stream(name, lambda first: self._names.config(keep, self._replicas, first))
            self._streams[name] = stream
        return stream

    def _tag(self) -> int:
        self._last_tag = max(self._last_tag + 1, int(time.time() * 1e6))
        return self._last_tag

    def reconnected(self) -> None:
        """Nothing is known of the store."""
        for following in self._followed.values():
            following.forget()

    # -- appending

    def append(
        self, log: LogName, payload: bytes, key: str | None, is_deletion: bool, id: str | None
    ) -> asyncio.Future[Position]:
        """Append a record; raises ValueError if it is larger than the server takes."""
        self._jet.link.check_size(len(payload) + 6 * len(key or "") + MOST_HEADERS)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Position] = loop.create_future()
        tag, deadline = self._tag(), loop.time() + self._jet.link.timeout
        new = New(log, payload, key, DELETION if is_deletion else RECORD, id, f"{self._nonce}.{tag:x}", tag, deadline)
        queue = self._queues.get(log)
        if queue is None:
            self._append(new, done)
        else:
            queue.append((new, done))
        return done

    def _next(self, log: LogName) -> None:
        """What was appended meanwhile, up to the next one with an id."""
        queue = self._queues.pop(log)
        while queue and log not in self._queues:
            new, done = queue.popleft()
            if asyncio.get_running_loop().time() > new.deadline:
                done.set_exception(self._jet.link.late())
            elif not done.done():
                self._append(new, done)
        if queue:
            self._queues[log] = queue

    def _append(self, new: New, done: asyncio.Future[Position]) -> None:
        """Store a record. Those after one with an id wait for it, which may have to be stored once more."""
        if new.id is not None:
            self._queues[new.log] = deque()
            done.add_done_callback(lambda _: self._next(new.log))
            new = _with_id(new, self._names.id(new.log, new.id))
        self._store(new, done)
        if new.key is not None:
            self._values.appended(new.log, self._stream(new.log))

    def _store(self, new: New, done: asyncio.Future[Position]) -> None:
        def on_stored(future: asyncio.Future[Ack]) -> None:
            error = future.exception()
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            elif future.result().is_duplicate and new.id is not None:
                self._jet.spawn(self._again(new, future.result().sequence, done))
            else:
                done.set_result(Position(future.result().sequence, new.tag))

        head = f"{mark(new.tag, new.what, new.key)}Nats-Msg-Id: {new.once}\r\n"
        message = Message(self._names.records(new.log), head, new.payload)
        self._jet.store(self._stream(new.log), message).add_done_callback(on_stored)

    async def _again(self, new: New, sequence: int, done: asyncio.Future[Position]) -> None:
        """The id was there already: in this life of the log, or in a former one, which does not count."""
        try:
            life = await self._lives.get(new.log, self._stream(new.log))
        except BackplaneError as error:
            if not done.done():
                done.set_exception(error)
            return
        if done.done():
            return
        if sequence > life.begun:
            done.set_result(Position(sequence, new.tag))
        else:
            self._store(_with_id(new, f"{new.once}@{life.begun}"), done)

    # -- following

    def follow(self, followers: Mapping[LogName, Follower]) -> None:
        """Have followers told of whatever the server stores from now on."""
        for log, follower in followers.items():
            self.unfollow([log])
            following = self._followed[log] = Following(follower)
            following.number = self._jet.link.handle(self._names.told(log), following.tell)

    def unfollow(self, logs: Collection[LogName]) -> None:
        """Follow no more."""
        for log in logs:
            following = self._followed.pop(log, None)
            if following is not None:
                self._jet.link.unsubscribe(following.number)

    def _know(self, log: LogName, *positions: Position) -> None:
        following = self._followed.get(log)
        if following is not None:
            for position in positions:
                following.know(position)

    # -- reading

    async def read(self, log: LogName, since: Position | None, limit: int) -> Read:
        """Returns what came after a position."""
        if since is None:
            return Read("ok", await self._top(log), ())
        for attempt in itertools.count(1):
            read = await self._read(log, since, limit)
            following = self._followed.get(log)
            if following is None or read.top.offset >= following.newest or attempt == TRIES:
                break
            await asyncio.sleep(0.01 * attempt)  # a replica that has not yet stored what we were told of
        self._know(log, read.top, *[record.position for record in read.records[-KNOWN:]])
        return read

    async def _read(self, log: LogName, since: Position, limit: int) -> Read:
        if not 0 < since.offset < MOST_SEQUENCE:
            return await self._refuse(log, since, [])
        most = None if log.has_keys else limit + 2
        found = await self._jet.scan(self._stream(log), self._names.records(log), since.offset, most)
        if not found or position_of(found[0]) != since:
            return await self._refuse(log, since, found)
        *_, last = found
        if len(found) > 1 and (self._is_over(log, last) or (log.has_keys and len(found) > log.keep.size + 1)):
            return Read("trimmed", position_of(last), ())
        records = _records(found[1:])
        if log.has_keys:
            records = sorted({record.key: record for record in records}.values())
        if len(records) > limit:
            return Read("too_many", await self._top(log), ())
        return Read("ok", position_of(last), records)

    async def _refuse(self, log: LogName, since: Position, found: list[Stored]) -> Read:
        """Says why a position is not good. What comes after it is given."""
        top = await self._top(log)
        if found and found[0].sequence == since.offset:
            return Read("unknown", top, ())
        first = await self._lives.first(log, self._stream(log))
        return Read("trimmed" if first and since.offset < first.sequence else "unknown", top, ())

    def _is_over(self, log: LogName, last: Stored) -> bool:
        """Whether nobody has said anything for the log's time."""
        return self._jet.now - last.time > log.keep.ttl

    async def _top(self, log: LogName) -> Position:
        """Returns the end of a log; one that never was is begun."""
        stream, subject = self._stream(log), self._names.records(log)
        while True:
            last = await self._jet.last(stream, [subject])
            if last:
                return position_of(last[0])
            tag = self._tag()
            try:
                ack = await self._jet.store(stream, Message(subject, f"{mark(tag, FIRST)}{ONCE}0\r\n"))
            except Rejected as error:
                if error.code != WRONG_LAST:
                    raise
            else:
                return Position(ack.sequence, tag)

    async def tops(self, logs: Sequence[LogName]) -> list[Position]:
        """Returns the ends of many logs."""
        by_stream: dict[str, dict[str, LogName]] = {}
        for log in logs:
            by_stream.setdefault(self._names.stream(log), {})[self._names.records(log)] = log
        tops: dict[LogName, Position] = {}
        for subjects in by_stream.values():
            stream = self._stream(next(iter(subjects.values())))
            for stored in await self._jet.last(stream, list(subjects)):
                tops[subjects[stored.subject]] = position_of(stored)
        missing = [log for log in dict.fromkeys(logs) if log not in tops]
        tops.update(zip(missing, await asyncio.gather(*map(self._top, missing)), strict=True))
        for log, top in tops.items():
            self._know(log, top)
        return [tops[log] for log in logs]

    async def snapshot(self, log: LogName) -> Read:
        """Returns the newest records."""
        for _ in range(TRIES):
            found = await self._jet.scan(self._stream(log), self._names.records(log))
            if not found:
                return Read("ok", await self._top(log), ())
            *_, last = found
            top = position_of(last)
            if self._is_over(log, last):
                return Read("ok", top, ())
            records = _records(found)
            if not log.has_keys:
                return Read("ok", top, records[-log.keep.size :])
            read = await self._newest(log, top, records)
            if read is not None:
                return read
        raise BackplaneError(f"the log {log.name!r} changes faster than it can be read")

    async def _newest(self, log: LogName, top: Position, records: list[Record]) -> Read | None:
        """Returns the newest record of each key. What changes while values are read is read after them."""
        stored, life = await self._values.get(log, self._stream(log)), await self._lives.get(log, self._stream(log))
        found = await self._jet.scan(self._stream(log), self._names.records(log), top.offset)
        if not found or position_of(found[0]) != top:
            return None
        values = {said.key: said for message in stored if (said := record_of(message)).position.offset > life.cleared}
        for record in [*records, *_records(found)]:
            known = values.get(record.key)
            if known is None or known.position < record.position:
                values[record.key] = record
        top = position_of(found[-1])
        return Read("ok", top, sorted(record for record in values.values() if record.payload is not None))

    # -- new beginnings

    async def broken(self, log: LogName, seen: Position) -> Position:
        """Begin a log anew if it has not the record seen."""
        while True:
            top, first = await self._top(log), await self._lives.first(log, self._stream(log))
            if (first and seen.offset < first.sequence) or await self._holds(log, seen):
                return top  # it is there, or may have been
            await self._fill(log, seen.offset)
            if log.has_keys and not await self._values.store(log, self._stream(log)):
                continue
            try:
                life = await self._lives.get(log, self._stream(log))
                return await self._begin(log, "unknown", life.cleared, f"{ONCE}{top.offset}\r\n")
            except Rejected as error:
                if error.code != WRONG_LAST:
                    raise

    async def clear(self, log: LogName) -> Position:
        """Begin a log anew, empty."""
        base = await self._begin(log, "cleared", 0, "")
        if log.has_keys:
            await self._jet.purge(self._stream(log), filter=self._names.values(log, None), seq=base.offset)
        return base

    async def _begin(self, log: LogName, why: str, cleared: int, condition: str) -> Position:
        """All before the new beginning is removed by it; only then it is written down where it is not trimmed."""
        tag = self._tag()
        head = f"{mark(tag, why)}{ALONE}{condition}Nats-Msg-Id: {self._nonce}.{tag:x}\r\n"
        ack = await self._jet.store(self._stream(log), Message(self._names.records(log), head))
        life = Life(ack.sequence, ack.sequence if why == "cleared" else cleared)
        await self._lives.put(log, self._stream(log), life)
        return Position(ack.sequence, tag)

    async def _holds(self, log: LogName, seen: Position) -> bool:
        """Whether a record is there. A replica may not have it yet; the leader knows."""
        stream = self._stream(log)
        found = await self._jet.scan(stream, self._names.records(log), seen.offset, 1)
        if found and position_of(found[0]) == seen:
            return True
        headers = await self._jet.holds(stream, self._names.records(log), seen.offset)
        return bool(header(headers, b"Fw")) and parse(headers).tag == seen.tag

    async def _fill(self, log: LogName, up_to: int) -> None:
        """Use up sequences, so that those from now on are above one that clients have seen."""
        stream, subject = self._stream(log), self._names.filler(log)
        while (missing := up_to - await self._jet.end(stream)) > 0:
            if missing > MOST_FILLED:
                await self._jet.purge(stream, seq=up_to + 1)
                return
            await asyncio.gather(*[self._jet.store(stream, Message(subject, ALONE)) for _ in range(min(missing, PART))])


def _records(found: Sequence[Stored]) -> list[Record]:
    return [record_of(stored) for stored in found if parse(stored.headers).what in (RECORD, DELETION)]


def _with_id(new: New, once: str) -> New:
    """Returns a record with the tag that its id gives it: whoever appends it again knows its position."""
    digest = hashlib.sha256(once.encode()).digest()
    return new._replace(once=once, tag=int.from_bytes(digest[:6], "big"))
