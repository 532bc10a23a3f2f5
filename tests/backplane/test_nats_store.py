"""What is particular about logs and the directory in JetStream."""

import asyncio
import json
import time

import pytest

from fastws.backplane.base import BackplaneError, LogName, NodeKey, UserName
from fastws.backplane.nats import NATS, directory, values
from fastws.logs import History, Latest

from ..lib.support import eventually, unused_port
from .peers import CARS, PRICES, ROOM, Backplanes, Peer


@pytest.fixture
async def backplanes(nats_server, request):
    nodes = Backplanes(lambda: NATS(nats_server.url))
    yield nodes
    await nodes.stop()


@pytest.fixture
def often(monkeypatch):
    """Values are stored after almost every record."""
    monkeypatch.setattr(values, "LEAST_RECORDS", 1)
    monkeypatch.setattr(values, "SETTLE", 0.0)


async def stored(peer, subject):
    """How many messages there are in the directory's stream on subjects that match."""
    jet = peer.backplane._jet
    info = await jet.api(f"STREAM.INFO.{peer.backplane._names.directory}", {"subjects_filter": subject})
    return sum((info["state"].get("subjects") or {}).values())


def latest(read):
    return {record.key: record.payload for record in read.records}


async def test_values_of_many_writers_are_kept_while_logs_are_trimmed(backplanes, often):
    peers = [await backplanes.node(name) for name in "abc"]
    log = LogName("/ws", "busy", Latest(changes=3))
    expected = {}
    for number in range(100):
        key = f"key{number % 7}"
        puts = [
            peer.put(log, key, None if number % 5 == 4 else b"%s %d" % (peer.key.id.encode(), number)) for peer in peers
        ]
        await asyncio.gather(*puts)
        if number % 10 == 0:
            read = await peers[0].backplane.snapshot(log)
            assert latest(read) == latest(await peers[1].backplane.snapshot(log))
    read = await peers[2].backplane.snapshot(log)
    assert set(latest(read)) == {f"key{n % 7}" for n in range(93, 100) if n % 5 != 4}
    for record in read.records:
        number = next(n for n in range(99, 0, -1) if f"key{n % 7}" == record.key)
        assert record.payload.endswith(b" %d" % number)
    expected = latest(read)
    for _ in range(3):
        await peers[0].put(log, "another", b"x")
    assert latest(await peers[1].backplane.snapshot(log)) == {**expected, "another": b"x"}


async def test_what_is_read_beside_the_storing_of_values_is_whole(backplanes, often):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    log = LogName("/ws", "whole", Latest(changes=2))
    for number in range(20):
        await a.put(log, f"key{number}", b"0")

    async def write():
        for number in range(1, 60):
            await asyncio.gather(*[a.put(log, f"key{key}", b"%d" % number) for key in range(20)])

    writing = asyncio.ensure_future(write())
    before = dict.fromkeys((f"key{key}" for key in range(20)), 0)
    while not writing.done():
        read = await b.backplane.snapshot(log)
        now = {key: int(payload) for key, payload in latest(read).items()}
        assert now.keys() == before.keys()
        assert all(now[key] >= before[key] for key in now)
        assert max(record.position for record in read.records) == read.top
        before = now
    await writing


async def test_who_stores_values_late_does_not_bring_old_ones_back(backplanes, monkeypatch):
    monkeypatch.setattr(values, "SETTLE", 0.0)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    log = LogName("/ws", "late", Latest(changes=1))
    await b.put(log, "key", b"old")
    of_a, of_b = a.backplane._logs, b.backplane._logs
    last, has_read, may_write = a.backplane._jet.last, asyncio.Event(), asyncio.Event()

    async def read(*asked):
        found = await last(*asked)
        has_read.set()
        await may_write.wait()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(a.backplane._jet, "last", read)
        storing = asyncio.ensure_future(of_a._values.store(log, of_a._stream(log)))
        await has_read.wait()
    for number in range(5):
        await b.put(log, "key" if number == 0 else "other", b"new")
    await of_b._values._store_and_trim(log, of_b._stream(log))
    may_write.set()
    assert await storing == []
    assert latest(await b.backplane.snapshot(log)) == {"key": b"new", "other": b"new"}


async def test_a_log_that_begins_anew_keeps_or_drops_all_values(backplanes, often):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    for number in range(30):
        await a.put(PRICES, f"key{number}", b"%d" % number)
    top = await a.top(PRICES)
    await b.backplane.broken(PRICES, top._replace(tag=1))
    assert latest(await a.backplane.snapshot(PRICES)) == {f"key{number}": b"%d" % number for number in range(30)}
    await b.backplane.clear(PRICES)
    for number in range(20):
        await a.put(PRICES, "new", b"%d" % number)
    assert latest(await a.backplane.snapshot(PRICES)) == {"new": b"19"}


async def test_names_may_be_longer_than_a_subject(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    names = ["ä" * 5000, "ä" * 5001]
    for name in names:
        log = LogName("/ws" * 1000, name, Latest())
        followed = await b.follow(log)
        await a.put(log, name, name.encode())
        await eventually(lambda f=followed, n=name: [record[1:] for record in f.records] == [(n, n.encode())])
        await a.backplane.claim([UserName("/ws", name)])
    assert await b.backplane.find([UserName("/ws", name) for name in names]) == [[a.key], [a.key]]
    assert {user.name for user in await b.backplane.holdings(a.key)} == set(names)


async def test_more_than_the_server_takes_is_a_value_error(backplanes):
    a = await backplanes.node("a")
    heard = await (await backplanes.node("b")).listen(CARS)
    with pytest.raises(ValueError, match="NATS takes 1,048,576"):
        a.backplane.send(CARS, b"x" * (1 << 21))
    with pytest.raises(ValueError, match="NATS takes 1,048,576"):
        a.backplane.append(ROOM, b"x" * (1 << 20), id="x")
    await a.append(ROOM, b"x" * 1_000_000, id="x")
    a.backplane.send(CARS, b"hi")
    await eventually(lambda: heard == [b"hi"])
    assert a.reasons == []


async def test_after_its_time_a_log_is_empty_and_its_end_is_known(backplanes):
    a = await backplanes.node("a")
    logs = [LogName("/ws", "short", History(ttl=1)), LogName("/ws", "short", Latest(ttl=1))]
    both = [[await a.backplane.append(log, b"1", key="k" if log.has_keys else None) for _ in "12"] for log in logs]
    read = await a.backplane.read(logs[0], both[0][0], 10)
    assert (read.status, read.top) == ("ok", both[0][1])
    await asyncio.sleep(1.2)
    for log, (first, last) in zip(logs, both, strict=True):
        snapshot = await a.backplane.snapshot(log)
        assert (list(snapshot.records), snapshot.top) == ([], last)
        assert (await a.backplane.read(log, first, 10)).status == "trimmed"
        assert (await a.backplane.read(log, last, 10)).status == "ok"


async def test_what_says_that_users_are_gone_is_removed_later(backplanes, monkeypatch):
    monkeypatch.setattr(directory, "LINGER", 0.0)
    a = await backplanes.node("a")
    users = [UserName("/ws", f"user{number}") for number in range(30)]
    await a.backplane.claim(users)
    await a.backplane.release(users)
    await a.backplane.claim(users[:3])
    subject = a.backplane._names.users(a.key)
    assert await stored(a, subject) == 63
    deadline = time.monotonic() + 20
    while await stored(a, subject) > 9:
        assert time.monotonic() < deadline
        await a.backplane.beat(b"")
        await asyncio.sleep(0.1)
    assert await a.backplane.find(users) == [[a.key]] * 3 + [[]] * 27


async def test_a_stopping_node_leaves_nothing(backplanes):
    a = await backplanes.node("a")
    await a.backplane.beat(b"")
    await a.backplane.claim([UserName("/ws", "ann")])
    await a.backplane.release([UserName("/ws", "ann")])
    await a.backplane.leave()
    b = await backplanes.node("b")
    deadline = time.monotonic() + 20
    while await stored(b, f"{b.backplane._names.directory.removesuffix('-directory')}.>"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_stream_that_an_operator_has_changed_is_used_as_it_is(backplanes):
    a = await backplanes.node("a")
    await a.append(ROOM, b"1")
    jet, name = a.backplane._jet, a.backplane._names.stream(ROOM)
    config = (await jet.api(f"STREAM.INFO.{name}", {}))["config"]
    await jet.api(f"STREAM.UPDATE.{name}", {**config, "max_bytes": 1 << 30})
    b = await backplanes.node("b")
    await b.append(ROOM, b"2")
    assert len((await a.backplane.snapshot(ROOM)).records) == 2
    assert json.loads(json.dumps(config))["republish"]["dest"].endswith(".>")


async def test_positions_that_no_store_can_have_are_unknown(backplanes):
    a = await backplanes.node("a")
    (first,) = await a.append(ROOM, b"1")
    for offset in (1 << 63, 1 << 64, 10**20):
        assert (await a.backplane.read(ROOM, first._replace(offset=offset), 10)).status == "unknown"
    for offset in (0, 1):
        assert (await a.backplane.read(ROOM, first._replace(offset=offset), 10)).status == "trimmed"


async def test_what_somebody_else_puts_into_a_log_is_no_record(backplanes):
    a = await backplanes.node("a")
    followed = await a.follow(ROOM)
    (first,) = await a.append(ROOM, b"1")
    a.backplane._link.publish(a.backplane._names.records(ROOM), b"foreign")
    (last,) = await a.append(ROOM, b"2")
    await eventually(lambda: followed.payloads == [b"1", b"2"])
    read = await a.backplane.read(ROOM, first, 10)
    assert (read.status, read.top, [record.payload for record in read.records]) == ("ok", last, [b"2"])
    assert [record.payload for record in (await a.backplane.snapshot(ROOM)).records] == [b"1", b"2"]


async def test_one_that_was_not_started_can_be_asked_and_stopped(nats_server):
    backplane = NATS(nats_server.url)
    assert (backplane.is_connected, backplane.lost) == (False, 0)
    await backplane.stop()


async def test_whoever_waits_when_it_stops_is_told(nats_server, backplanes):
    with unused_port() as port:
        backplane = NATS(f"nats://127.0.0.1:{port}")
        peer = Peer(NodeKey("a", 1), backplane)
        await backplane.start(peer.key, peer, prefix="x", timeout=60.0, buffer=1 << 20)
        futures = [backplane.append(ROOM, b"1"), backplane.append(PRICES, b"1", key="k", id="x")]
        reading = asyncio.ensure_future(backplane.read(ROOM, None, 0))
        await asyncio.sleep(0.1)
        await backplane.stop()
        for waiting in (*futures, reading):
            with pytest.raises(BackplaneError):
                await waiting


class Counting:
    """A transport whose writes are counted."""

    def __init__(self, transport):
        self._transport, self.writes = transport, 0

    def write(self, data):
        self.writes += 1
        self._transport.write(data)

    def __getattr__(self, name):
        return getattr(self._transport, name)


async def test_what_one_turn_of_the_loop_says_is_one_write(backplanes):
    a = await backplanes.node("a")
    await a.top(ROOM)
    connection = a.backplane._link._connection
    counting = connection._transport = Counting(connection._transport)
    futures = [a.backplane.append(ROOM, b"%d" % number) for number in range(50)]
    for _ in range(50):
        a.backplane.send(CARS, b"hi")
    await asyncio.gather(*futures)
    assert counting.writes == 1
