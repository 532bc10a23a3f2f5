"""Readers of latest values that lag: they get what is newest when they read again, in order, and memory stays flat."""

import asyncio
import struct
from array import array
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from fastws.backplane.base import Record
from fastws.cluster import laggards as module
from fastws.cluster.laggards import EVERYTHING, STEP, Laggards
from fastws.logs import Position

from ..lib.raw import request
from ..lib.support import Recorder, eventually, needs_proc, nothing_left, resident

KEYS = [f"key {number}" for number in range(8)]


class Log:
    """The owner of a table, and of its laggards."""

    def __init__(self, **options):
        self.table = {}
        self.laggards = Laggards(**options)
        self.offset = 0

    def append(self, key, payload):
        self.offset += 1
        record = Record(Position(self.offset, 1), key, payload)
        self.table.pop(key, None)
        if payload is not None:
            self.table[key] = record
        return record


class Reader:
    """One that is sent live records while it is ready, and is caught up when it is not."""

    def __init__(self):
        self.view = {}
        self.last = 0
        self.is_ready = True

    def take(self, records):
        for record in records:
            assert record.position.offset > self.last, "out of order, or twice"
            self.last = record.position.offset
            if record.payload is None:
                self.view.pop(record.key, None)
            else:
                self.view[record.key] = record.payload

    def take_step(self, step, size):
        if step.is_snapshot:
            self.view, self.last = {}, 0
        assert len({record.key for record in step.records}) == len(step.records)
        assert len(step.records) == 1 or sum(10 + len(record.payload or b"") for record in step.records) <= size
        self.take(step.records)
        self.is_ready = step.is_last


orders = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(KEYS), st.sampled_from([b"", b"x" * 30, b"y" * 60, b"z" * 200])),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
    st.tuples(st.sampled_from(["stall", "drain"]), st.integers(0, 3)),
    st.sampled_from([("leave", 0), ("leave", 1), ("restart",)]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(orders, min_size=40, max_size=120), st.integers(2, 4))
def test_whatever_happens_each_ends_with_the_newest(given_orders, most_deleted):
    log = Log(step=150, overhead=10)
    readers = [Reader() for _ in range(4)]

    def drain(reader):
        step = log.laggards.drained(reader, log.table)
        if step is not None:
            reader.take_step(step, 150)
            assert (reader in log.laggards) is not step.is_last
            remembered = len(log.table) + len(log.laggards._deleted)
            assert len(log.laggards._order) <= 2 * remembered + most_deleted
        return step

    def publish(record):
        before = record.position.offset - 1
        for reader in readers:
            if reader.is_ready:
                reader.take([record])
            else:
                log.laggards.skipped(reader, before)
        if record.payload is None:
            log.laggards.deleted(record, log.table)

    def follow(order, *arguments):
        if order == "set":
            publish(log.append(*arguments))
        elif order == "delete" and arguments[0] in log.table:
            publish(log.append(arguments[0], None))
        elif order == "stall":
            readers[arguments[0]].is_ready = False
        elif order == "drain":
            drain(readers[arguments[0]])
        elif order == "leave":
            log.laggards.forget(readers[arguments[0]])
            readers[arguments[0]] = Reader()
            log.laggards.skipped(readers[arguments[0]], EVERYTHING)
            readers[arguments[0]].is_ready = False
        elif order == "restart":
            for reader in readers:
                reader.is_ready = False
                log.laggards.skipped(reader, EVERYTHING)
            log.laggards.restart()

    with mock.patch.object(module, "MOST_DELETED", most_deleted):
        for order in given_orders:
            follow(*order)
            assert len(log.laggards._deleted) <= max(most_deleted, len(log.table))
        for reader in readers:
            for _ in range(2 * len(KEYS) + 2):
                if drain(reader) is None:
                    break
            assert drain(reader) is None, "it never ends"
            assert reader.view == {key: record.payload for key, record in log.table.items()}
    left = log.laggards
    assert (len(left), left._order, left._deleted, left._snapshots) == (0, [], {}, {})


def test_a_laggard_gets_only_the_newest_of_each_key_the_oldest_first():
    log = Log()
    for number in range(10):
        log.append(KEYS[number % 5], b"%d" % number)
    assert log.laggards.skipped("ann", 2)
    assert not log.laggards.skipped("ann", 7), "it lags since then"
    (records, is_snapshot, is_last) = log.laggards.drained("ann", log.table)
    assert [record.payload for record in records] == [b"5", b"6", b"7", b"8", b"9"]
    assert (is_snapshot, is_last) == (False, True)
    assert log.laggards.drained("ann", log.table) is None


def test_one_without_anything_new_gets_an_empty_step():
    log = Log()
    log.append("a", b"1")
    log.laggards.skipped("ann", 1)
    assert log.laggards.drained("ann", log.table) == ([], False, True)
    log.laggards.skipped("bob", EVERYTHING)
    assert log.laggards.drained("bob", {}) == ([], True, True)


def test_too_many_deletions_make_it_begin_anew():
    log = Log()
    for number in range(3000):
        log.append(str(number), b"x")
    log.laggards.skipped("ann", log.offset)
    log.laggards.skipped("bob", log.offset)
    for number in range(2900):
        log.laggards.deleted(log.append(str(number), None), log.table)
    log.append("new", b"y")
    step = log.laggards.drained("ann", log.table)
    assert (step.is_snapshot, step.is_last) == (True, True)
    assert [record.key for record in step.records] == [*map(str, range(2900, 3000)), "new"]
    assert len(log.laggards._deleted) <= 1000


def test_deletions_that_are_forgotten_while_it_gets_everything_do_not_hold_it_up():
    log = Log(step=1000)
    for number in range(50):
        log.append(str(number), b"x")
    log.laggards.skipped("ann", EVERYTHING)
    reader = Reader()
    reader.take_step(log.laggards.drained("ann", log.table), 1000)
    for number in range(5000):
        log.append("comes and goes", b"x")
        log.laggards.deleted(log.append(f"comes and goes {number}", None), log.table)
    log.append("0", b"y")
    snapshots = steps = 0
    while "ann" in log.laggards:
        step = log.laggards.drained("ann", log.table)
        reader.take_step(step, 1000)
        snapshots += step.is_snapshot
        steps += 1
        assert steps < 1000
    assert snapshots == 1
    assert reader.view == {key: record.payload for key, record in log.table.items()}


def test_a_large_table_is_sent_in_steps_without_looking_at_all_of_it_each_time():
    log = Log()
    for number in range(20_000):
        log.append(str(number), bytes(900))
    log.laggards.skipped("ann", EVERYTHING)
    received = []
    while (step := log.laggards.drained("ann", log.table)) is not None:
        assert step.is_snapshot is (received == [])
        assert sum(len(record.payload) for record in step.records) <= STEP
        received += step.records
        log.append("0", b"changes all the time")
    offsets = [record.position.offset for record in received]
    assert offsets == sorted(set(offsets))
    assert {record.key for record in received} == set(log.table)


READERS, STALLED, UPDATES = 20, 5, 100_000
PAD = b"." * 180  # a frame's header is 4 bytes then, and all updates are more than the kernel buffers


class Channel:
    """A channel of latest values, on the engine and the laggards."""

    def __init__(self, manager):
        self.manager = manager
        self.log = Log()
        manager.life.on_drained.add(self.go_on)

    def publish(self, key):
        record = self.log.append(key, b"%d:%s" % (self.log.offset + 1, PAD))
        for ws in self.manager._broadcast_to_ready("cars", record.payload, STEP)[1]:
            if self.log.laggards.skipped(ws, record.position.offset - 1):
                ws._notify_when_drained()

    def go_on(self, ws):
        step = self.log.laggards.drained(ws, self.log.table)
        ws._send_run(self.manager._prepare(record.payload for record in step.records))
        if not step.is_last:
            ws._notify_when_drained()


async def read(raw, numbers):
    """Note the numbers of the messages that come; their frames have a header of four bytes."""
    while await raw._more():
        data, place = bytes(raw.buffer), 0
        while place + 4 <= len(data):
            (length,) = struct.unpack_from("!H", data, place + 2)
            if place + 4 + length > len(data):
                break
            number, _, pad = data[place + 4 : place + 4 + length].partition(b":")
            assert pad == PAD
            numbers.append(int(number))
            place += 4 + length
        del raw.buffer[:place]


@needs_proc
async def test_stalled_readers_cost_no_memory_and_end_with_the_newest(serve, dial, wire):
    site = await serve(recorder := Recorder(), ping_interval=0)
    channel = Channel(site.manager)
    raws = [await dial(site.url, receive_buffer=4096 if place < STALLED else None) for place in range(READERS)]
    for raw in raws:
        await raw.send(request("/ws/cars"))
        await raw.response()
    await recorder.until("on_subscribe", READERS)
    keys = [f"key {number}" for number in range(100)]
    received = [array("I") for _ in raws]
    reading = [asyncio.create_task(read(*each)) for each in list(zip(raws, received, strict=True))[STALLED:]]
    most = 0
    for number in range(UPDATES):
        channel.publish(keys[number * 7 % 100])
        if number % 50 == 49:
            await asyncio.sleep(0)
            most = max(most, site.server._reactor.counters["arena_bytes"])
        if number == UPDATES // 2:
            before = resident()
    grown = resident() - before
    assert len(channel.log.laggards) >= STALLED
    reading += [asyncio.create_task(read(*each)) for each in list(zip(raws, received, strict=True))[:STALLED]]
    await eventually(lambda: all(numbers and numbers[-1] == UPDATES for numbers in received))
    for task in reading:
        task.cancel()
    newest = {number % 100: number for number in range(1, UPDATES + 1)}
    for numbers in received:
        assert all(first < second for first, second in pairwise(numbers)), "an older one after a newer, or one twice"
        assert {number % 100: number for number in numbers} == newest
    assert max(map(len, received[:STALLED])) < UPDATES / 2
    assert most < 8 << 20
    assert grown < 16 << 20
    assert site.manager.stats["closed_slow"] == 0
    for raw in raws:
        raw.reset()
    await eventually(lambda: nothing_left(site))
