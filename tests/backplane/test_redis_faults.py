"""Redis goes away and comes back: with everything, with less, with nothing; or only seems to be there."""

import asyncio
import logging

import pytest

from fastws.backplane.base import BackplaneError, LogName, NodeKey, Subject, UserName
from fastws.backplane.redis import Redis
from fastws.backplane.redis.names import Names
from fastws.backplane.redis.scripts import script
from fastws.logs import History, Latest

from ..lib.redis import RedisServer
from ..lib.relay import Relay
from ..lib.support import eventually
from .peers import CARS, PRICES, ROOM, Backplanes

ANN, BOB = UserName("/ws", "ann"), UserName("/ws", "bob")
SHORT = 2.0  # seconds of patience, where its end is awaited


@pytest.fixture
def redis(tmp_path):
    """A Redis server of the test's own, which keeps everything."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()
    yield server
    server.kill()


@pytest.fixture
def forgetful(tmp_path):
    """A Redis server that keeps what it is told to save."""
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
async def nodes():
    """`nodes(url)` is where nodes on that URL come from."""
    made = []

    def at(url):
        made.append(Backplanes(lambda: Redis(url)))
        return made[-1]

    yield at
    for backplanes in made:
        await backplanes.stop()


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "fastws.backplane"]


async def gone(*peers):
    await eventually(lambda: not any(peer.backplane.is_connected for peer in peers))


async def back(*peers):
    await eventually(lambda: all(peer.backplane.is_connected for peer in peers))


async def test_a_redis_that_comes_back_with_everything(redis, nodes, caplog):
    caplog.set_level(logging.INFO, "fastws.backplane")
    backplanes = nodes(redis.url)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    received, followed = await b.listen(CARS), await b.follow(ROOM)
    (first,) = await a.append(ROOM, b"1", id="x")
    await eventually(lambda: followed.payloads == [b"1"])
    redis.stop()
    await gone(a, b)
    assert len(a.reasons) == 1
    a.backplane.send(CARS, b"lost")
    waiting = a.backplane.append(ROOM, b"2")
    redis.start()
    second = await waiting
    await back(a, b)
    assert (a.connected, len(a.reasons)) == (2, 1)
    assert a.backplane.lost == 1
    read = await b.backplane.read(ROOM, first, 10)
    assert (read.status, read.top, [record.payload for record in read.records]) == ("ok", second, [b"2"])
    assert await b.append(ROOM, b"again", id="x") == [first]
    a.backplane.send(CARS, b"hi")
    (third,) = await a.append(ROOM, b"3")
    await eventually(lambda: received == [b"hi"] and followed.payloads[-1:] == [b"3"])
    sentences = said(caplog)
    assert len([text for text in sentences if "is away, and is tried again: " in text]) == 2, sentences
    assert len([text for text in sentences if "is back" in text]) == 2, sentences
    assert third.offset == 3


async def test_a_redis_that_comes_back_empty(forgetful, nodes):
    backplanes = nodes(forgetful.url)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    followed = await b.follow(ROOM)
    zero = await a.top(PRICES)
    *_, last = await a.append(ROOM, b"1", b"2", b"3")
    await a.backplane.claim([ANN, BOB])
    await b.backplane.claim([BOB])
    await a.backplane.release([BOB])
    await a.backplane.beat(b"")
    await eventually(lambda: len(followed.records) == 3)
    forgetful.kill()
    await gone(a, b)
    forgetful.start()
    await back(a, b)
    assert (await b.backplane.read(ROOM, last, 10)).status == "unknown"
    assert (await b.backplane.read(PRICES, zero, 10)).status == "unknown"
    base = await b.backplane.broken(ROOM, last)
    assert base.offset >= last.offset
    await eventually(lambda: followed.begun == [(base, "unknown")])
    await eventually_found(b, [[a.key], [b.key]])
    assert not (await a.backplane.beat(b"")).was_known


async def eventually_found(peer, expected):
    async with asyncio.timeout(20):
        while await peer.backplane.find([ANN, BOB]) != expected:
            await asyncio.sleep(0.01)


async def test_a_redis_that_comes_back_older(forgetful, nodes):
    backplanes = nodes(forgetful.url)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    await a.append(ROOM, b"kept")
    await a.backplane.claim([BOB])
    assert forgetful.say("SAVE") == b"+OK\r\n"
    (lost,) = await a.append(ROOM, b"lost")
    await a.backplane.release([BOB])
    await a.backplane.claim([ANN])
    forgetful.kill()
    await gone(a, b)
    forgetful.start()
    await back(a, b)
    *_, last = await b.append(ROOM, b"2", b"3", b"4")
    assert last.offset > lost.offset
    read = await b.backplane.read(ROOM, lost, 10)
    assert (read.status, list(read.records)) == ("unknown", [])
    assert await b.backplane.broken(ROOM, lost) > last
    await eventually_found(b, [[a.key], []])
    assert await b.backplane.holdings(a.key) == [ANN]


async def test_connections_that_redis_closes_are_made_again_without_a_loss_in_logs(redis, nodes):
    backplanes = nodes(redis.url)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    log = LogName("/ws", "all", History(size=1000))
    zero = await a.top(log)
    positions = []
    for start in range(0, 400, 50):
        futures = [a.backplane.append(log, b"%d" % number) for number in range(start, start + 50)]
        for kind in ("normal", "pubsub"):
            redis.say("CLIENT", "KILL", "TYPE", kind)
        positions += [await future for future in futures]
    read = await b.backplane.read(log, zero, 1000)
    assert [record.payload for record in read.records] == [b"%d" % number for number in range(400)]
    assert [record.position for record in read.records] == positions
    await eventually(lambda: a.connected > 1 and b.connected > 1)


@pytest.mark.parametrize("after", [1, 20, 33, 47, 90, 150])
async def test_a_connection_cut_in_the_middle_of_a_frame(redis, nodes, after):
    async with Relay(redis.port) as relay:
        backplanes = nodes(f"redis://127.0.0.1:{relay.port}")
        a = await backplanes.node("a", timeout=20.0)
        b = await backplanes.node("b", backplane=Redis(redis.url))
        followed = await a.follow(PRICES)
        zero = await a.top(PRICES)
        relay.cut_after(after)
        positions = [await a.put(PRICES, f"key{number}", b"x" * 40) for number in range(30)]
        await eventually(lambda: a.connected == 2)
        read = await b.backplane.read(PRICES, zero, 100)
        assert read.status in ("ok", "trimmed")
        assert len(positions) == len(set(positions)) == 30
        snapshot = await b.backplane.snapshot(PRICES)
        assert [record.position for record in snapshot.records] == positions
        assert set(followed.records) <= set(snapshot.records)
        await backplanes.stop()


async def test_a_redis_that_is_not_there_at_the_start(tmp_path, nodes, caplog):
    caplog.set_level(logging.INFO, "fastws.backplane")
    redis = RedisServer(tmp_path)
    backplanes = nodes(redis.url)
    a = await backplanes.node("a", is_awaited=False, timeout=SHORT)
    assert not a.backplane.is_connected
    with pytest.raises(BackplaneError, match="has not answered for 2 s"):
        await a.backplane.read(ROOM, None, 0)
    with pytest.raises(BackplaneError, match="has not answered in time"):
        await a.append(ROOM, b"1")
    with pytest.raises(BackplaneError):
        await a.listen(CARS)
    a.backplane.send(CARS, b"lost")
    assert a.backplane.lost == 1
    redis.start()
    await back(a)
    received = await a.listen(Subject("all", "", ""))
    (position,) = await a.append(ROOM, b"2")
    assert position.offset == 1
    b = await backplanes.node("b")
    b.backplane.send(CARS, b"to whoever asked in vain")
    b.backplane.send(Subject("all", "", ""), b"hi")
    await eventually(lambda: received == [b"hi"])
    sentences = said(caplog)
    assert len(sentences) == 2, sentences
    assert sentences[0].startswith(f"Redis at {redis.url} is away, and is tried again: ")
    assert sentences[1] == f"Redis at {redis.url} is back"
    redis.kill()


async def test_a_frozen_redis_is_given_up_in_time_and_does_late_what_was_given_up_at_most_once(redis, nodes):
    backplanes = nodes(redis.url)
    a = await backplanes.node("a", timeout=SHORT)
    (first,) = await a.append(ROOM, b"1")
    redis.freeze()
    began = asyncio.get_running_loop().time()
    with pytest.raises(BackplaneError):
        await a.append(ROOM, b"2", id="2")
    with pytest.raises(BackplaneError):
        await a.backplane.claim([ANN])
    assert asyncio.get_running_loop().time() - began < 10 * SHORT
    await gone(a)
    assert "it has not answered for 2 s" in a.reasons[0]
    with pytest.raises(BackplaneError):
        await a.backplane.beat(b"")
    redis.thaw()
    await back(a)
    await a.append(ROOM, b"2", id="2")
    await a.backplane.release([ANN])
    read = await a.backplane.read(ROOM, first, 10)
    assert [record.payload for record in read.records] == [b"2"]
    await asyncio.sleep(0.1)
    assert await a.backplane.find([ANN]) == [[]]


async def test_a_call_that_comes_after_a_later_one_changes_nothing(redis, nodes):
    """It was in a connection that the node had given up, and Redis reads it when it wakes up."""
    backplanes = nodes(redis.url)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    names = Names(backplanes.prefix, 0)
    await a.backplane.claim([ANN])
    await a.backplane.release([ANN])
    user = names.user(ANN)
    keys = [names.key(0, b"g"), names.holdings(0, a.key), user.key]
    late = [script("claim").sha, "3", *keys, str(a.key), "1", "0", user.name]
    assert redis.say("EVALSHA", *late) == b"*1\r\n$0\r\n\r\n"
    assert await b.backplane.find([ANN]) == [[]]
    await a.append(ROOM, b"1", b"2")
    (called,) = [key for key in keys_of(redis) if b":a:" in key]
    redis.say("SET", called, "5 1-1")
    log = names.log(ROOM)
    late = [
        script("append").sha,
        "5",
        called,
        *log.keys,
        "4",
        log.channel,
        "5",
        "1000",
        "1000",
        "0",
        "1",
        "",
        "0",
        "",
        "x",
    ]
    assert redis.say("EVALSHA", *late).startswith(b"-STALE")
    assert (await b.top(ROOM)).offset == 2


def keys_of(redis):
    return redis.say("KEYS", "*").split(b"\r\n")[2::2]


async def test_a_black_hole_between_redis_and_a_node(redis, nodes):
    async with Relay(redis.port) as relay:
        backplanes = nodes(f"redis://127.0.0.1:{relay.port}")
        a = await backplanes.node("a", timeout=SHORT)
        relay.freeze()
        await gone(a)
        relay.thaw()
        await back(a)
        assert (await a.append(ROOM, b"1"))[0].offset == 1
        await backplanes.stop()


async def test_a_beat_that_comes_late_does_not_hide_that_its_node_was_buried(redis, nodes):
    async with Relay(redis.port) as relay:
        backplanes = nodes(redis.url)
        a = await backplanes.node("a", backplane=Redis(f"redis://127.0.0.1:{relay.port}"), timeout=SHORT)
        b = await backplanes.node("b")
        await a.backplane.beat(b"")
        relay.freeze()
        with pytest.raises(BackplaneError):
            await a.backplane.beat(b"")
        assert await b.backplane.bury(a.key, 1) == [a.key]
        relay.thaw()
        await eventually(lambda: a.backplane.is_connected)
        for _ in range(2):  # the beat that was given up may have come before these
            assert not (await a.backplane.beat(b"")).was_known
        a.backplane.rename(NodeKey("a", 2))
        assert not (await a.backplane.beat(b"")).was_known
        assert (await a.backplane.beat(b"")).was_known
        await backplanes.stop()


async def test_what_waits_is_bounded(redis, nodes):
    a = await nodes(redis.url).node("a", buffer=10_000)
    redis.freeze()
    for _ in range(100):
        a.backplane.send(CARS, b"x" * 1000)
    assert 80 <= a.backplane.lost <= 95
    redis.thaw()
    redis.stop()
    await gone(a)
    futures = [a.backplane.append(ROOM, b"x" * 1000) for _ in range(100)]
    refused = [future for future in futures if future.done()]
    assert 90 <= len(refused) <= 95
    with pytest.raises(BackplaneError, match="bytes are waiting for Redis already"):
        await refused[0]
    redis.start()
    await asyncio.gather(*[future for future in futures if future not in refused])


async def test_what_is_too_large_for_redis_costs_nothing_else(redis, nodes, caplog):
    backplanes = nodes(redis.url)
    a, b = await backplanes.node("a", buffer=1 << 26, timeout=60.0), await backplanes.node("b", timeout=60.0)
    received, followed = await b.listen(CARS), await b.follow(ROOM)
    large = b"x" * (17 << 20)
    a.backplane.send(CARS, large)
    with pytest.raises(BackplaneError, match="too many for Redis: 16,777,216 at most"):
        await a.append(ROOM, large)
    a.backplane.send(CARS, large[: 5 << 20])
    await a.append(ROOM, large[: 1 << 20])
    await eventually(lambda: len(received) == len(followed.records) == 1)
    assert (a.backplane.lost, b.reasons) == (1, [])
    assert "is too large for Redis" in caplog.text


async def test_a_redis_without_its_scripts_gets_them_again(redis, nodes):
    backplanes = nodes(redis.url)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    await b.backplane.claim([ANN])
    inbox = await b.listen(Subject("node", "", "b"))
    assert redis.say("SCRIPT", "FLUSH") == b"+OK\r\n"
    a.backplane.route([ANN], b"lost")
    assert (await a.append(ROOM, b"1"))[0].offset == 1
    await eventually(lambda: a.backplane.lost == 1)
    a.backplane.route([ANN], b"hi")
    await eventually(lambda: inbox == [b"hi"])


async def test_a_full_redis_takes_no_appends_and_goes_on_with_the_rest(tmp_path, nodes):
    redis = RedisServer(tmp_path, "--maxmemory", "3mb").start()
    a = await nodes(redis.url).node("a")
    received = await a.listen(Subject("node", "", "a"))
    log = LogName("/ws", "large", History(size=1000))
    (first,) = await a.append(log, b"1")
    with pytest.raises(BackplaneError, match="Redis refuses: OOM"):
        await a.append(log, *[b"x" * 100_000] * 40)
    assert (await a.backplane.read(log, first, 100)).status == "ok"
    assert (await a.backplane.snapshot(log)).top == await a.top(log)
    assert await a.backplane.claim([ANN]) == [[]]
    assert await a.backplane.release([ANN]) == [[]]
    await a.backplane.beat(b"")
    a.backplane.send(Subject("node", "", "a"), b"hi")
    await eventually(lambda: received == [b"hi"])
    await a.backplane.clear(log)
    assert (await a.append(log, b"2"))[0] > first
    redis.kill()


@pytest.mark.parametrize("asked", ["append", "read"])
async def test_a_redis_that_misses_its_replicas_says_so(tmp_path, nodes, asked):
    redis = RedisServer(tmp_path, "--min-replicas-to-write", "1").start()
    a = await nodes(redis.url).node("a")
    with pytest.raises(BackplaneError, match="Redis refuses: NOREPLICAS"):
        await (a.append(ROOM, b"1") if asked == "append" else a.top(ROOM))
    redis.kill()


async def test_logs_end_after_their_time(redis, nodes):
    a = await nodes(redis.url).node("a")
    room, prices = LogName("/ws", "short", History(ttl=1)), LogName("/ws", "brief", Latest(ttl=1))
    first, last = await a.append(room, b"1", b"2")
    await a.put(prices, "gone", None)
    await a.put(prices, "AAPL", b"1")
    async with asyncio.timeout(20):
        while (await a.backplane.read(room, first, 10)).status == "ok" or (await a.backplane.snapshot(prices)).records:
            await asyncio.sleep(0.05)
    assert (await a.backplane.read(room, first, 10)).status == "trimmed"
    assert (await a.backplane.read(room, last, 10)).status == "ok"
    assert (await a.append(room, b"3"))[0].offset == 3


async def test_stopping_waits_for_a_frozen_redis_no_longer_than_the_timeout(redis, nodes):
    a = await nodes(redis.url).node("a", timeout=SHORT)
    redis.freeze()
    future = a.backplane.append(ROOM, b"1")
    began = asyncio.get_running_loop().time()
    await a.backplane.stop()
    assert asyncio.get_running_loop().time() - began < 5 * SHORT
    with pytest.raises(BackplaneError):
        await future


async def test_stopping_waits_for_what_was_said(redis, nodes):
    backplanes = nodes(redis.url)
    a, b = await backplanes.node("a"), await backplanes.node("b")
    received = await b.listen(CARS)
    future = a.backplane.append(ROOM, b"1")
    for number in range(1000):
        a.backplane.send(CARS, b"%d" % number)
    await a.backplane.stop()
    assert future.result().offset == 1
    await eventually(lambda: len(received) == 1000)
