"""A run: messages encoded once for many connections. It is as if each had been sent by itself."""

import asyncio
import gc
import random
import threading
import weakref

import pytest

from fastws import Listener, Server
from fastws._core import Run
from fastws.testing import connect, running

from ..lib.raw import BINARY, CLOSE, TEXT, request
from ..lib.support import Recorder, eventually, nothing_left

BACKLOG = 64 * 1024
BLOCK = 128 * 1024 - 64  # bytes; or some more
ENOUGH = 64 * 1024 * 1024  # bytes; more than the kernel buffers for one connection


def arena(site):
    """Bytes of the arena, without the block for the next messages, which there is from the first one on."""
    site.manager.send((), "x")
    return site.server._reactor.counters["arena_bytes"] - BLOCK


def sockets(site):
    return list(site.manager.connections.values())


async def test_it_arrives_in_its_place_among_other_messages(serve, join, any_wire):
    server_options, client_options = any_wire
    site = await serve(**server_options)
    client = await join(f"{site.url}/ws/cars", **client_options)
    await client.ping()
    (ws,) = sockets(site)
    run = site.manager._prepare(["one", b"two", {"three": 3}, "", "ä" * 200, bytes(70_000)])
    assert len(run) == 6
    ws.send("before")
    assert ws._send_run(run) == 6
    site.manager.broadcast("cars", "between")
    assert ws._send_run(run, 4) == 2
    assert ws._send_run(run, 6) == ws._send_run(run, 7) == 0
    ws.send("after")
    whole = ["one", b"two", '{"three":3}', "", "ä" * 200, bytes(70_000)]
    expected = ["before", *whole, "between", *whole[4:], "after"]
    assert [await client.receive() for _ in expected] == expected
    assert ws._figures()[1] == site.manager.stats["deliveries"] == len(expected)


async def test_an_empty_one_sends_nothing(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    (ws,) = sockets(site)
    run = site.manager._prepare(iter(()))
    assert (len(run), run.size, ws._send_run(run)) == (0, 0, 0)
    assert await client.received() == []
    assert site.manager.stats["deliveries"] == 0


async def test_what_cannot_be_prepared_or_sent_says_so(serve, join):
    site, other = await serve(), await serve()
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    (ws,) = sockets(site)
    before = arena(site)
    with pytest.raises(TypeError):
        site.manager._prepare(["fine", bytes(100_000), object()])
    with pytest.raises(ZeroDivisionError):
        site.manager._prepare(1 // 0 for _ in "x")
    assert arena(site) == before
    with pytest.raises(ValueError, match="another server"):
        ws._send_run(other.manager._prepare(["x"]))
    with pytest.raises(OverflowError):
        ws._send_run(site.manager._prepare(["x"]), -1)
    with pytest.raises(RuntimeError, match="before the server has started"):
        Server(port=0).endpoint("/", Listener())._prepare(["x"])
    assert await client.received() == []


async def stalled(site, dial):
    """A raw client that has not read for so long that its socket is full, and what it was sent."""
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    await eventually(lambda: sockets(site))
    (ws,) = sockets(site)
    sent = []
    while ws.pending < BACKLOG // 8:
        assert len(sent) * 4096 < ENOUGH
        sent.append(bytes(4096))
        ws.send(sent[-1])
        await asyncio.sleep(0)
    return raw, ws, sent


def pieces(source):
    """Unique messages of many sizes."""
    return [source.randbytes(source.choice([8, 60, 300, 3000, 20_000])) for _ in range(source.randint(1, 30))]


def frame_size(payload):
    return len(payload) + (2 if len(payload) < 126 else 4)


@pytest.mark.parametrize("seed", range(3))
async def test_with_drop_newest_exactly_what_does_not_fit_is_left_out(serve, dial, wire, seed):
    site = await serve(max_backlog=BACKLOG, overflow="drop_newest", ping_interval=0)
    raw, ws, expected = await stalled(site, dial)
    source = random.Random(seed)
    dropped = 0
    for _ in range(20):
        messages, fit, pending = pieces(source), [], ws.pending
        for message in messages:
            if pending + frame_size(message) <= BACKLOG:
                fit.append(message)
                pending += frame_size(message)
        assert ws._send_run(site.manager._prepare(messages)) == len(fit)
        assert ws.pending == pending
        expected += fit
        dropped += len(messages) - len(fit)
    assert site.manager.stats["dropped_newest"] == dropped > 0
    assert ws._figures()[1] == len(expected)
    for message in expected:
        assert (await raw.frame()).payload == message
    raw.reset()
    await eventually(lambda: nothing_left(site))


@pytest.mark.parametrize("seed", range(3))
async def test_with_drop_oldest_the_newest_stay(serve, dial, wire, seed):
    site = await serve(max_backlog=BACKLOG, overflow="drop_oldest", ping_interval=0)
    raw, ws, sent = await stalled(site, dial)
    source = random.Random(seed)
    for _ in range(20):
        messages = pieces(source)
        assert ws._send_run(site.manager._prepare(messages)) == len(messages)
        assert ws.pending <= BACKLOG
        sent += messages
    ws.ping()
    dropped = site.manager.stats["dropped_oldest"]
    assert dropped > 0
    received = []
    while len(received) < len(sent) - dropped:
        got = await raw.frame()
        received += [got.payload] if got.opcode == BINARY else []
    left = iter(sent)
    assert all(message in left for message in received), "out of order, damaged, or not sent at all"
    assert received[-1] == sent[-1]


async def test_with_close_it_ends_where_there_is_no_more_room(serve, dial, wire):
    site = await serve(recorder := Recorder(), max_backlog=BACKLOG, overflow="close", close_timeout=0.5)
    raw, ws, _ = await stalled(site, dial)
    room = (BACKLOG - ws.pending) // 1004
    run = site.manager._prepare([*(bytes([number]) * 1000 for number in range(100)), b"", b""])
    assert ws._send_run(run) == room, "small ones at the end, for which there is room, are too late"
    assert not ws.is_open
    assert ws._send_run(run) == 0
    del run
    await asyncio.sleep(0)
    assert site.manager.stats["closed_slow"] == 1
    got = await raw.frame()
    while got.opcode == BINARY:
        assert got.payload == bytes(4096)
        got = await raw.frame()
    assert (got.opcode, got.payload) == (CLOSE, (1013).to_bytes(2) + b"too slow")
    await recorder.until("on_close")
    await eventually(lambda: nothing_left(site))


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "drop_newest"])
async def test_one_larger_than_the_backlog_goes_to_a_reader_with_room(serve, join, overflow):
    site = await serve(max_backlog=8192, overflow=overflow)
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    (ws,) = sockets(site)
    messages = [str(number) * 500 for number in range(100)]
    assert ws._send_run(site.manager._prepare(messages)) == 100
    assert [await client.receive() for _ in messages] == messages
    assert site.manager.stats["dropped_oldest"] == 0


@pytest.mark.parametrize("flush_threads", [1, 4])
async def test_many_get_it_and_some_vanish(serve, dial, flush_threads):
    site = await serve(flush_threads=flush_threads)
    raws = [await dial(site.url) for _ in range(200)]
    for raw in raws:
        await raw.send(request("/ws/cars"))
    for raw in raws:
        await raw.response()
    messages = [f"{number}:" + "x" * (number * 7 % 500) for number in range(100)]
    run = site.manager._prepare(messages)
    before = arena(site)
    for place, ws in enumerate(sockets(site)):
        assert ws._send_run(run, place % 100) == 100 - place % 100
    assert arena(site) == before, "they share its bytes"
    del run
    for raw in raws[150:]:
        raw.reset()
    firsts = []
    for raw in raws[:150]:
        got = [await raw.text()]
        while got[-1] != messages[-1]:
            got.append(await raw.text())
        firsts.append(100 - len(got))
        assert got == messages[firsts[-1] :]
        raw.close()
    assert len(set(firsts)) == 100
    await eventually(lambda: nothing_left(site))


async def test_its_memory_is_given_back_with_it_or_with_the_last_reader(serve, dial, wire):
    site = await serve(max_backlog=1 << 30, ping_interval=0)
    before = arena(site)
    run = site.manager._prepare([bytes(1000)] * 1000)
    assert run.size == 1004 * 1000
    assert run.size <= arena(site) - before <= run.size + 4096
    del run
    assert arena(site) == before
    raw, ws, sent = await stalled(site, dial)
    run = site.manager._prepare([bytes(1000)] * 1000)
    ws._send_run(run)
    del run
    await asyncio.sleep(0)
    assert arena(site) > 1_000_000
    for _ in range(len(sent) + 1000):
        await raw.frame()
    await eventually(lambda: arena(site) < 100_000)
    raw.reset()
    await eventually(lambda: nothing_left(site))


async def test_it_may_be_dropped_on_another_thread(serve, dial):
    site = await serve()
    await dial(site.url, "/ws/cars")
    held = [site.manager._prepare([bytes(100_000)])]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    site.manager.broadcast("cars", "x")
    await eventually(lambda: arena(site) < 100_000)


async def test_it_may_outlive_its_connections_and_its_server():
    server = Server(port=0)
    manager = server.endpoint("/ws/{channel}", Listener())
    async with running(server) as url, connect(f"{url}/ws/cars") as client:
        await client.ping()
        (ws,) = manager.connections.values()
        run = manager._prepare(["x" * 1000] * 100)
        reactor = weakref.ref(server._reactor)
        ws.close()
        assert ws._send_run(run) == 0
    assert ws._send_run(run) == 0
    del server, manager, ws, client
    await asyncio.sleep(0)
    gc.collect()
    assert reactor() is not None, "it holds the memory"
    assert len(run) == 100
    del run
    gc.collect()
    assert reactor() is None


async def test_one_that_its_server_keeps_is_freed_with_it():
    server = Server(port=0)
    manager = server.endpoint("/ws/{channel}", Listener())
    async with running(server):
        manager.life.kept = manager._prepare(["x" * 1000] * 100)
        reactor = weakref.ref(server._reactor)
    del server, manager
    await asyncio.sleep(0)
    gc.collect()
    assert reactor() is None


async def test_those_that_are_kept_close_nobody_for_max_arena(serve, dial, join):
    site = await serve(max_arena=1 << 20, max_backlog=1 << 20, ping_interval=0)
    raw, ws, sent = await stalled(site, dial)
    kept = [site.manager._prepare([bytes(1000)] * 600) for _ in range(4)]
    assert arena(site) > 2 << 20
    ws._send_run(kept[0])
    ws.send("last")
    quick = await join(f"{site.url}/ws/other")
    for _ in range(20):
        site.manager.broadcast("other", "x" * 10_000)
        await quick.receive()
    assert ws.is_open
    for _ in range(len(sent) + 600):
        assert (await raw.frame()).opcode == BINARY
    assert (await raw.frame()).opcode == TEXT
    del kept


async def test_those_that_only_slow_readers_keep_count_for_max_arena(serve, dial, wire):
    site = await serve(max_arena=1 << 20, max_backlog=1 << 30, ping_interval=0, close_timeout=0.5)
    _, ws, _ = await stalled(site, dial)
    for _ in range(4):
        ws._send_run(site.manager._prepare([bytes(5000)] * 120))
        await asyncio.sleep(0)
    await eventually(lambda: site.manager.stats["closed_slow"] == 1)
    await eventually(lambda: nothing_left(site))


def test_it_is_made_by_an_endpoint_only():
    with pytest.raises(TypeError):
        Run(None, [])
