"""NATS that goes away, comes back with or without what it had, stands still, or is cut off amid a message."""

import asyncio
import contextlib
import shutil

import pytest

from fastws.backplane.base import BackplaneError, LogName, Subject, UserName
from fastws.backplane.nats import NATS
from fastws.logs import History, Latest, Position

from ..lib.nats import NATSServer
from ..lib.support import eventually, records_naming, unused_port
from .peers import CARS, PRICES, ROOM, Backplanes

PATIENT = 30.0  # seconds to wait for a server that is started again


@pytest.fixture
def server(tmp_path):
    with unused_port() as port:
        server = NATSServer(tmp_path, port)
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def backplanes(server):
    nodes = Backplanes(lambda: NATS(server.url))
    yield nodes
    await nodes.stop()


def payloads(read):
    return [record.payload for record in read.records]


async def is_back(*peers):
    await eventually(lambda: all(peer.backplane.is_connected for peer in peers))


async def test_a_restart_that_loses_nothing_is_not_noticed_in_a_log(server, backplanes, caplog):
    caplog.set_level("INFO", "fastws")
    a, b = await backplanes.node("a", timeout=PATIENT), await backplanes.node("b", timeout=PATIENT)
    followed, heard = await b.follow(ROOM), await b.listen(CARS)
    zero = await a.top(ROOM)
    await a.append(ROOM, b"1")
    server.kill()
    await eventually(lambda: a.reasons and b.reasons)
    waiting = [a.backplane.append(ROOM, b"%d" % number) for number in (2, 3)]
    a.backplane.send(CARS, b"lost")
    assert a.backplane.lost == 1
    server.start()
    positions = [await position for position in waiting]
    await is_back(a, b)
    await eventually(lambda: a.connected == b.connected == 2)
    assert payloads(await b.backplane.read(ROOM, zero, 10)) == [b"1", b"2", b"3"]
    (last,) = await a.append(ROOM, b"4")
    await eventually(lambda: followed.records and followed.records[-1].position == last)
    assert [*positions, last] == sorted({*positions, last})
    assert followed.begun == []
    a.backplane.send(CARS, b"hi")
    await eventually(lambda: heard == [b"hi"])
    said = [(record.levelname, record.getMessage().split(";")[0].split(": ")[0]) for record in caplog.records]
    gone, back = ("WARNING", f"NATS at {server.url} is away"), ("WARNING", f"NATS at {server.url} is back.")
    assert sorted(said) == sorted([gone, back] * 2)  # one for each node


async def test_what_is_under_way_when_it_is_killed_is_stored_once_and_in_order(server, backplanes):
    a = await backplanes.node("a", timeout=PATIENT)
    logs = [LogName("/ws", "many", History(size=10_000)), LogName("/ws", "keys", Latest(changes=10_000))]
    zeros = [await a.top(log) for log in logs]
    for log, zero in zip(logs, zeros, strict=True):
        futures = []
        for number in range(2000):
            key = f"key{number}" if log.has_keys else None
            futures.append(a.backplane.append(log, b"%d" % number, key=key))
            if number == 1500:
                await futures[700]
                server.kill()
        server.start()
        positions = [await future for future in futures]
        read = await a.backplane.read(log, zero, 10_000)
        assert [record.position for record in read.records] == positions
        assert payloads(read) == [b"%d" % number for number in range(2000)]


async def test_a_store_that_comes_back_empty_is_found_out(server, backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    followed = await b.follow(ROOM)
    *_, seen = await a.append(ROOM, *[b"%d" % number for number in range(10)])
    await a.backplane.claim([UserName("/ws", "ann")])
    await a.backplane.beat(b"")
    server.kill()
    shutil.rmtree(server.data)
    server.start()
    await eventually(lambda: a.connected == b.connected == 2)
    read = await a.backplane.read(ROOM, seen, 10)
    assert read.status in ("unknown", "trimmed")
    assert read.top.offset > seen.offset
    assert await b.backplane.broken(ROOM, seen) >= read.top
    (position,) = await a.append(ROOM, b"new")
    assert position.offset > seen.offset
    await eventually(lambda: followed.payloads[-1:] == [b"new"])
    assert (await b.backplane.read(ROOM, seen, 10)).status in ("unknown", "trimmed")
    assert await b.backplane.find([UserName("/ws", "ann")]) == [[]]
    assert not (await a.backplane.beat(b"")).was_known


@pytest.mark.parametrize("log", [ROOM, PRICES], ids=["history", "latest"])
async def test_a_store_that_lost_its_tail_is_found_out(server, backplanes, log):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    other = LogName(log.endpoint, "other", log.keep)

    async def say(*numbers):
        return [
            await a.backplane.append(log, b"%d" % number, key=f"k{number % 3}" if log.has_keys else None)
            for number in numbers
        ]

    key = "x" if log.has_keys else None
    kept = await a.backplane.append(other, b"kept", key=key)
    (early,) = await say(1)
    server.stop()
    shutil.copytree(server.data, server.folder / "copy")
    server.start()
    await eventually(lambda: a.connected == b.connected == 2)
    *_, seen = await say(2, 3, 4, 5)
    followed = await b.follow(log)
    server.kill()
    shutil.rmtree(server.data)
    shutil.move(server.folder / "copy", server.data)
    server.start()
    await eventually(lambda: a.connected == b.connected == 3)
    assert (await b.backplane.read(log, seen, 10)).status == "unknown"
    await say(2, 3, 4)  # other records, with the same sequences
    while (await b.top(log)).offset < seen.offset:
        await say(6)
    assert (await b.backplane.read(log, seen, 10)).status == "unknown"
    assert followed.calls[0][0] != seen
    base = await b.backplane.broken(log, seen)
    assert base.offset > seen.offset
    await eventually(lambda: followed.begun == [(base, "unknown")])
    for since in (early, seen):
        assert (await a.backplane.read(log, since, 10)).status in ("unknown", "trimmed")
    if log.has_keys:
        values = {record.key: record.payload for record in (await a.backplane.snapshot(log)).records}
        assert values == {"k0": b"6", "k1": b"4", "k2": b"2"}
    assert (await a.backplane.read(other, kept, 10)).status == "ok"  # what lost nothing goes on


@pytest.mark.parametrize("what", ["claim", "release", "beat", "nothing"])
async def test_a_node_whose_users_were_lost_is_told(server, backplanes, what):
    a = await backplanes.node("a")
    ann, bob = UserName("/ws", "ann"), UserName("/ws", "bob")
    await a.backplane.claim([ann])
    await a.backplane.beat(b"")
    server.stop()
    shutil.copytree(server.data, server.folder / "copy")
    server.start()
    await eventually(lambda: a.connected == 2)
    if what == "claim":
        await a.backplane.claim([bob])
    elif what == "release":
        await a.backplane.release([ann])
    elif what == "beat":
        assert (await a.backplane.beat(b"")).was_known
    server.kill()
    shutil.rmtree(server.data)
    shutil.move(server.folder / "copy", server.data)
    server.start()
    await eventually(lambda: a.connected == 3)
    assert (await a.backplane.beat(b"")).was_known == (what == "nothing")
    assert (await a.backplane.beat(b"")).was_known


async def test_very_many_lost_records_make_all_of_the_stream_begin_anew(backplanes):
    a = await backplanes.node("a")
    (last,) = await a.append(ROOM, b"1")
    seen = Position(last.offset + 5_000_000, 1)
    base = await a.backplane.broken(ROOM, seen)
    assert base.offset > seen.offset
    assert (await a.backplane.read(ROOM, last, 10)).status in ("unknown", "trimmed")


async def test_one_that_stands_still_is_given_up_and_found_again(server, backplanes):
    a, b = await backplanes.node("a", timeout=1.0), await backplanes.node("b")
    heard = await a.listen(CARS)
    (first,) = await b.append(ROOM, b"1")
    server.freeze()
    started = asyncio.get_running_loop().time()
    with pytest.raises(BackplaneError, match="has not answered within 1 s"):
        await a.append(ROOM, b"2")
    for asked in (a.backplane.read(ROOM, first, 1), a.backplane.claim([UserName("/ws", "x")]), a.backplane.beat(b"")):
        with pytest.raises(BackplaneError):
            await asked
    await eventually(lambda: a.reasons)
    assert asyncio.get_running_loop().time() - started < 10
    assert not a.backplane.is_connected
    a.backplane.send(CARS, b"lost")
    assert a.backplane.lost == 1
    server.thaw()
    await is_back(a, b)
    b.backplane.send(CARS, b"hi")
    await eventually(lambda: heard == [b"hi"])
    assert (await a.backplane.read(ROOM, first, 10)).status == "ok"


async def test_no_more_waits_for_one_that_is_away_than_allowed(server, backplanes):
    a = await backplanes.node("a", timeout=1.0, buffer=100_000)
    server.kill()
    await eventually(lambda: a.reasons)
    futures = [a.backplane.append(ROOM, b"x" * 10_000) for _ in range(20)]
    await asyncio.sleep(0.1)
    refused = [future for future in futures if future.done()]
    assert 5 < len(refused) < 15
    for future in futures:
        with pytest.raises(BackplaneError):
            await future


# -- cut off in the middle


class Proxy:
    """Between nodes and their store: passes on at most so many bytes from the store, then cuts all connections."""

    def __init__(self, port):
        self.target, self.left = port, 1 << 60
        self._writers, self._tasks = set(), set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exception):
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _on_client(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        there = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers |= {writer, there[1]}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, there[1], False), self._pump(there[0], writer, True))

    async def _pump(self, reader, writer, is_counted):
        while data := await reader.read(1 << 16):
            if is_counted:
                data = data[: self.left]
                self.left -= len(data)
            writer.write(data)
            if not self.left:
                await writer.drain()
                self.cut()
        writer.close()

    def cut(self):
        self.left = 1 << 60
        while self._writers:
            self._writers.pop().close()


async def test_a_connection_cut_in_the_middle_of_a_message_loses_nothing_of_a_log(server, backplanes):
    log = LogName("/ws", "long", History(size=1000))
    async with Proxy(server.port) as proxy:
        a = await backplanes.node("a")
        backplanes.make = lambda: NATS(proxy.url)
        b = await backplanes.node("b", timeout=PATIENT)
        followed, since = await b.follow(log), await b.top(log)
        for number in range(30):
            proxy.left = 1 + 37 * number
            await a.append(log, b"theirs %d" % number)
            mine = b.backplane.append(log, b"ours %d" % number)
            await b.backplane.find([UserName("/ws", "nobody")])
            await mine
        read = await b.backplane.read(log, since, 1000)
        await backplanes.stop()
    assert read.status == "ok"
    assert sorted(payloads(read)) == sorted(b"%s %d" % (who, n) for who in (b"ours", b"theirs") for n in range(30))
    told = [record.position for record in followed.records]
    assert told == sorted(set(told))
    assert set(told) <= {record.position for record in read.records}
    assert len(b.reasons) >= 10  # some of the cuts hit nothing


# -- starting


async def test_one_that_is_unreachable_at_the_start_is_said_and_tried_again(tmp_path, caplog):
    with unused_port() as port:
        server = NATSServer(tmp_path, port)
        nodes = Backplanes(lambda: NATS(f"nats://127.0.0.1:{port}"))
        starting = asyncio.ensure_future(nodes.node("a", timeout=1.0))
        await eventually(lambda: records_naming(caplog, "cannot be reached"))
        (a,) = nodes.peers
        assert not a.backplane.is_connected
        with pytest.raises(BackplaneError):
            await a.backplane.listen({CARS: print})
        await asyncio.sleep(0.5)
        assert len(records_naming(caplog, "trying again")) == 1
        server.start()
        assert await starting is a
        assert (await a.append(ROOM, b"1"))[0].offset > 0
        await nodes.stop()
        server.stop()


async def test_any_server_of_the_url_will_do(server):
    with unused_port() as dead:
        nodes = Backplanes(lambda: NATS(f"nats://127.0.0.1:{dead},127.0.0.1:{server.port}"))
        for number in range(5):
            await nodes.node(f"n{number}")
        await nodes.stop()


async def test_stop_sends_what_is_waiting(server, backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    heard = await b.listen(Subject("all", "", ""), Subject("node", "", "b"))
    await b.backplane.claim([UserName("/ws", "ann")])
    a.backplane.send(Subject("all", "", ""), b"bye")
    a.backplane.route([UserName("/ws", "ann")], b"bye, ann")
    appended = a.backplane.append(ROOM, b"last words")
    backplanes.peers.remove(a)
    await a.backplane.stop()
    await eventually(lambda: len(heard) == 2)
    assert not a.backplane.is_connected
    assert await b.top(ROOM) == await appended
