"""Logs in Redis: a list of entries for each, a hash of the values of one with keys, and where they end."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from ...logs import Position
from .._push import records_of
from ..base import BackplaneError, Follower, LogName, Read, Record, Status
from .caller import Caller
from .lanes import Item, Lane, fail
from .names import LogKeys, Names

__all__ = ["MOST_PAYLOAD", "Logs", "receiver_of"]

MOST_RECORDS, MOST_BYTES = 100, 256 << 10  # of one call, so that others need not wait for long
BATCH = 100  # ends of logs in one call
MOST_PAYLOAD = 16 << 20  # bytes; Redis cuts off a subscriber for whom 32 MiB are waiting


class Append(NamedTuple):
    """A record that is to be stored."""

    log: LogName
    key: bytes
    is_deletion: bool
    id: bytes
    payload: bytes


class Logs:
    """What `Backplane` says of logs."""

    def __init__(self, caller: Caller, names: Names, token: str, timeout: float, buffer: int) -> None:
        self._caller, self._names, self._token = caller, names, token
        self._timeout, self._buffer = timeout, buffer
        self._waiting = 0  # bytes
        self._lanes: dict[int, Lane[Append]] = {}

    def append(
        self, log: LogName, payload: bytes, key: str | None, is_deletion: bool, id: str | None
    ) -> asyncio.Future[Position]:
        """Append a record; those of one turn of the loop are one call."""
        loop = asyncio.get_running_loop()
        keys = self._names.log(log)
        record = Append(log, _bytes(key or ""), is_deletion, _bytes(id or ""), payload)
        size = len(payload) + len(record.key) + len(record.id) + 200
        item = Item(record, size, loop.time() + self._timeout)
        if size > MOST_PAYLOAD:
            fail(item, BackplaneError(f"{size:,} bytes are too many for Redis: {MOST_PAYLOAD:,} at most"))
            return item.done
        if self._waiting + size > self._buffer and self._waiting:
            fail(item, BackplaneError(f"{self._waiting:,} bytes are waiting for Redis already"))
            return item.done
        self._waiting += size
        item.done.add_done_callback(lambda _: self._forget(size))
        partition = self._caller.topology.lane(keys.partition)
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = Lane(self._carry_out(partition), MOST_RECORDS, MOST_BYTES)
        lane.put(item)
        return item.done

    async def read(self, log: LogName, since: Position | None, limit: int) -> Read:
        """Returns what came after a position."""
        keys = self._names.log(log)
        place = ("", "") if since is None else since
        reply = await self._caller.run(
            keys.partition, "read", keys.keys, [*place, limit, int(log.has_keys), keys.meta_ttl]
        )
        status, top, entries = reply
        return Read(
            cast(Status, status.decode()), _position(top), _changes(entries) if log.has_keys else _records(entries)
        )

    async def snapshot(self, log: LogName) -> Read:
        """Returns the newest records."""
        keys = self._names.log(log)
        top, entries = await self._caller.run(
            keys.partition, "snapshot", keys.keys, [log.keep.size, int(log.has_keys), keys.meta_ttl]
        )
        if not log.has_keys:
            return Read("ok", _position(top), _records(entries))
        values = [_value(_text(key), value) for key, value in zip(entries[::2], entries[1::2], strict=True)]
        return Read("ok", _position(top), sorted(values))

    async def tops(self, logs: Sequence[LogName]) -> list[Position]:
        """Returns the ends of logs, of many in one call."""
        lanes: dict[int, list[int]] = defaultdict(list)
        for number, log in enumerate(logs):
            lanes[self._caller.topology.lane(self._names.log(log).partition)].append(number)
        tops: list[Position | None] = [None] * len(logs)
        parts = [
            (lane, numbers[start : start + BATCH])
            for lane, numbers in lanes.items()
            for start in range(0, len(numbers), BATCH)
        ]
        await asyncio.gather(*[self._tops(lane, logs, numbers, tops) for lane, numbers in parts])
        return cast(list[Position], tops)

    async def _tops(self, lane: int, logs: Sequence[LogName], numbers: list[int], tops: list[Position | None]) -> None:
        keys = [self._names.log(logs[number]) for number in numbers]
        metas = await self._caller.run(lane, "tops", [key.keys[0] for key in keys], [key.meta_ttl for key in keys])
        for number, meta in zip(numbers, metas, strict=True):
            if meta is None:
                tops[number] = (await self.read(logs[number], None, 0)).top
            else:
                offset, tag, *_ = meta.split()
                tops[number] = Position(int(offset), int(tag))

    async def begin(self, log: LogName, reason: str, seen: Position | None) -> Position:
        """Begin a log anew; with ``seen`` only if that is not there, and values of keys stay."""
        keys = self._names.log(log)
        args = [keys.channel, reason, *(("", "") if seen is None else seen), keys.meta_ttl]
        return _position(await self._caller.run(keys.partition, "begin", keys.keys, args))

    async def idle(self) -> None:
        """Wait until nothing is waiting."""
        await asyncio.gather(*[lane.idle() for lane in self._lanes.values()])

    def close(self, error: BackplaneError) -> None:
        """Give up whatever is waiting."""
        for lane in self._lanes.values():
            lane.close(error)

    def _forget(self, size: int) -> None:
        self._waiting -= size

    def _carry_out(self, partition: int) -> Callable[..., Any]:
        called = self._names.key(partition, b"a:" + self._token.encode())

        async def carry_out(items: list[Item[Append]], number: int, deadline: float) -> list[Position]:
            logs: dict[tuple[str, str], list[int]] = defaultdict(list)
            for place, item in enumerate(items):
                logs[item.value.log[:2]].append(place)
            keys, args = [called], [number]
            for places in logs.values():
                records = [items[place].value for place in places]
                _add(self._names.log(records[0].log), records, keys, args)
            reply = await self._caller.until(deadline, partition, "append", keys, args)
            positions = dict(zip([place for places in logs.values() for place in places], reply.split(), strict=True))
            return [_position(positions[place]) for place in range(len(items))]

        return carry_out


def _add(log: LogKeys, records: list[Append], keys: list[bytes], args: list[Any]) -> None:
    name = records[0].log
    keys += log.keys
    args += [log.channel, name.keep.size, log.ttl, log.meta_ttl, int(name.has_keys), len(records)]
    for record in records:
        args += [record.key, int(record.is_deletion), record.id, record.payload]


# -- what scripts answer and publish


def receiver_of(log: LogName, follower: Follower) -> Callable[[bytes], None]:
    """Returns what is called with whatever is published of a log."""
    has_keys = log.has_keys

    def receive(payload: bytes) -> None:
        if payload.startswith(b"H"):
            follower.on_records(*records_of(payload, has_keys, Position, Record))
            return
        words = payload[1:].split()
        follower.on_begun(Position(int(words[0]), int(words[1])), words[2].decode())

    return receive


def _position(text: bytes) -> Position:
    offset, _, tag = text.partition(b"-")
    return Position(int(offset), int(tag))


def _records(entries: list[bytes]) -> list[Record]:
    return [_value(None, entry) for entry in entries]


def _changes(entries: list[Any]) -> list[Record]:
    """Triples of a position, a key and its value, which a deleted key has not."""
    return [
        Record(_position(position), _text(key), None) if value is None else _value(_text(key), value)
        for position, key, value in zip(entries[::3], entries[1::3], entries[2::3], strict=True)
    ]


def _value(key: str | None, value: bytes) -> Record:
    position, _, payload = value.partition(b"\n")
    return Record(_position(position), key, payload)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
