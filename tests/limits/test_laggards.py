"""Readers that lag: a broadcast may leave them out, says whom, and hears from the engine when they have caught up."""

import asyncio

import pytest

from ..lib.support import Recorder, eventually, nothing_left

LIMIT = 64 * 1024
ENOUGH = 64 * 1024 * 1024  # bytes; more than the kernel buffers for one connection


class Told:
    """Whom the engine has reported, in order."""

    def __init__(self, site):
        self.sockets = []
        site.manager.life.on_drained.add(self.sockets.append)


@pytest.fixture
async def lagging(serve, dial, wire):
    """A site, and the raw client and the WebSocket of one whose socket is full."""
    site = await serve(recorder := Recorder(), max_backlog=1 << 30, ping_interval=0)
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    raw.filled = 0
    while ws.pending < LIMIT:
        assert raw.filled * 4096 < ENOUGH
        ws.send(bytes(4096))
        raw.filled += 1
        await asyncio.sleep(0)
    return site, raw, ws


async def catch_up(raw):
    for _ in range(raw.filled):
        await raw.frame()


async def test_whoever_lags_is_named_and_left_out(lagging, join):
    site, raw, ws = lagging
    clients = [await join(f"{site.url}/ws/cars") for _ in range(3)]
    for client in clients:
        await client.ping()
    by_age = list(site.manager.connections.values())
    broadcast = site.manager._broadcast_to_ready
    assert broadcast("cars", "one", LIMIT) == (3, [ws])
    assert broadcast("cars", "two", LIMIT, exclude=[by_age[1]]) == (2, [ws])
    assert broadcast("cars", "three", LIMIT, exclude=[ws.id]) == (3, [])
    assert broadcast("cars", "four", ENOUGH) == (3, [ws]), "its socket is full, however little it has pending"
    assert broadcast("nobody", "five", LIMIT) == (0, [])
    received = [await client.received() for client in clients]
    assert sorted(received) == [["one", "three", "four"], *[["one", "two", "three", "four"]] * 2]
    await catch_up(raw)
    ws.send("marker")
    assert await raw.text() == "marker"


async def test_many_messages_in_one_turn_take_no_more_than_the_limit(serve, join, any_wire):
    server_options, client_options = any_wire
    site = await serve(ping_interval=0, **server_options)
    client = await join(f"{site.url}/ws/cars", **client_options)
    await client.ping()
    (ws,) = site.manager.connections.values()
    results = [site.manager._broadcast_to_ready("cars", f"{number:1000}", LIMIT) for number in range(200)]
    queued = sum(count for count, _ in results)
    assert results == [(1, [])] * queued + [(0, [ws])] * (200 - queued)
    assert queued == LIMIT // 1004 + 1
    assert len(await client.received()) == queued
    assert site.manager._broadcast_to_ready("cars", "x", LIMIT) == (1, [])


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "drop_newest"])
async def test_the_overflow_policy_is_never_called_upon(serve, dial, wire, overflow):
    site = await serve(max_backlog=10_000, overflow=overflow, ping_interval=0)
    await dial(site.url, "/ws/cars", receive_buffer=4096)
    await eventually(lambda: site.manager.connections)
    (ws,) = site.manager.connections.values()
    for _ in range(ENOUGH // 4096):
        if [site.manager._broadcast_to_ready("cars", bytes(4096), LIMIT) for _ in range(5)] == [(0, [ws])] * 5:
            break
        await asyncio.sleep(0)
    assert site.manager._broadcast_to_ready("cars", bytes(20_000), LIMIT) == (0, [ws])
    assert ws.is_open
    stats = site.manager.stats
    assert stats["closed_slow"] == stats["dropped_oldest"] == stats["dropped_newest"] == 0


async def test_whoever_has_caught_up_is_reported_once(lagging):
    site, raw, ws = lagging
    told = Told(site)
    ws._notify_when_drained()
    ws._notify_when_drained()
    await asyncio.sleep(0.01)
    assert told.sockets == []
    await catch_up(raw)
    await eventually(lambda: told.sockets)
    assert told.sockets == [ws]
    assert ws.pending == 0
    ws.send("later")
    assert await raw.text() == "later"
    await asyncio.sleep(0.01)
    assert told.sockets == [ws]


async def test_with_nothing_pending_it_is_reported_in_a_turn_of_its_own(serve, join, any_wire):
    server_options, client_options = any_wire
    site = await serve(**server_options)
    told = Told(site)
    client = await join(f"{site.url}/ws/cars", **client_options)
    await client.ping()
    (ws,) = site.manager.connections.values()
    for times in range(1, 4):
        ws._notify_when_drained()
        assert len(told.sockets) == times - 1
        await eventually(lambda times=times: len(told.sockets) == times)
    assert await client.received() == []


async def test_until_then_it_is_left_out_even_if_there_is_room(serve, join, any_wire):
    server_options, client_options = any_wire
    site = await serve(**server_options)
    told = Told(site)
    client = await join(f"{site.url}/ws/cars", **client_options)
    await client.ping()
    (ws,) = site.manager.connections.values()
    ws._notify_when_drained()
    assert site.manager._broadcast_to_ready("cars", "too early", LIMIT) == (0, [ws])
    site.manager.broadcast("cars", "as ever")
    assert told.sockets == []
    await eventually(lambda: told.sockets)
    assert site.manager._broadcast_to_ready("cars", "in time", LIMIT) == (1, [])
    assert await client.received() == ["as ever", "in time"]


async def test_it_is_not_reported_in_the_middle_of_a_broadcast(serve, join, any_wire):
    """One that finds an outbox full writes it at once, and so may empty it."""
    server_options, client_options = any_wire
    site = await serve(max_backlog=20_000, **server_options)
    told = Told(site)
    client = await join(f"{site.url}/ws/cars", **client_options)
    await client.ping()
    (ws,) = site.manager.connections.values()
    sent = [str(number) * 3000 for number in range(1, 10)]
    ws._notify_when_drained()
    for message in sent:
        assert site.manager.broadcast("cars", message) == 1
    assert ws.pending < 20_000 < sum(map(len, sent))
    assert told.sockets == []
    await eventually(lambda: told.sockets)
    assert [await client.receive() for _ in sent] == sent
    assert told.sockets == [ws]


async def test_what_the_callback_sends_goes_out_and_may_ask_again(lagging):
    site, raw, ws = lagging
    parts = [[f"{number}:{part}" for part in range(50)] for number in range(20)]
    waiting = list(parts)

    def go_on(ready):
        assert ready is ws
        assert ws.pending == 0
        ready._send_run(site.manager._prepare(waiting.pop(0)))
        if waiting:
            ready._notify_when_drained()

    site.manager.life.on_drained.add(go_on)
    ws._notify_when_drained()
    await catch_up(raw)
    for part in parts:
        assert [await raw.text() for _ in part] == part
    assert waiting == []


async def test_one_that_is_sent_something_before_its_turn_is_reported_after_that(serve, join, any_wire):
    server_options, client_options = any_wire
    site = await serve(**server_options)
    clients = [await join(f"{site.url}/ws/cars", **client_options) for _ in range(4)]
    for client in clients:
        await client.ping()
    told = []

    def send_to_all(ws):
        told.append((ws, ws.pending))
        site.manager.broadcast("cars", "x")

    site.manager.life.on_drained.add(send_to_all)
    for ws in site.manager.connections.values():
        ws._notify_when_drained()
    await eventually(lambda: len(told) == 4)
    assert {ws for ws, _ in told} == set(site.manager.connections.values())
    assert [pending for _, pending in told] == [0] * 4
    assert [await client.received() for client in clients] == [["x"] * 4] * 4


async def test_a_transport_that_keeps_much_has_not_written_it(serve, dial, monkeypatch):
    monkeypatch.setattr("fastws.server.has_epoll", False)
    site = await serve(recorder := Recorder(), ping_interval=0)
    told = Told(site)
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    sent = 0
    while site.manager._broadcast_to_ready("cars", bytes(16 * 1024), LIMIT) == (1, []):
        assert sent * 16 * 1024 < ENOUGH
        sent += 1
        await asyncio.sleep(0)
    assert ws.pending == 0
    ws._notify_when_drained()
    await asyncio.sleep(0.05)
    assert told.sockets == []
    for _ in range(sent):
        await raw.frame()
    await eventually(lambda: told.sockets == [ws])


@pytest.mark.parametrize("how", ["reset", "server", "slow"])
async def test_whoever_closes_first_is_never_reported(serve, dial, wire, how):
    site = await serve(recorder := Recorder(), max_backlog=1 << 20, close_timeout=0.1, ping_interval=0)
    told = Told(site)
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    for _ in range(ENOUGH // 65536):
        ws.send(bytes(65536))
        if ws.pending > 1 << 19:
            break
        await asyncio.sleep(0)
    ws._notify_when_drained()
    if how == "reset":
        raw.reset()
    elif how == "server":
        ws.close(4000, "enough")
        ws._notify_when_drained()
        await raw.eof()
    else:
        while ws.send(bytes(65536)):
            pass
    await recorder.until("on_close")
    ws._notify_when_drained()
    await eventually(lambda: nothing_left(site))
    assert told.sockets == []


async def test_one_that_closes_before_its_turn_is_not_reported(serve, join):
    site = await serve(recorder := Recorder())
    clients = [await join(f"{site.url}/ws/cars") for _ in range(30)]
    for client in clients:
        await client.ping()
    told = []

    def close_others(ws):
        told.append(ws)
        for other in recorder.sockets:
            other.close()

    site.manager.life.on_drained.add(close_others)
    for ws in recorder.sockets:
        ws._notify_when_drained()
    await recorder.until("on_close", 30)
    assert len(told) == 1


async def test_a_callback_that_raises_costs_one_connection(serve, join, caplog):
    site = await serve()
    first, second = [await join(f"{site.url}/ws/cars") for _ in range(2)]
    await first.ping()
    await second.ping()
    site.manager.life.on_drained.add(lambda ws: 1 // 0)
    next(iter(site.manager.connections.values()))._notify_when_drained()
    await eventually(lambda: len(site.manager.connections) == 1)
    site.manager.life.on_drained.clear()
    next(iter(site.manager.connections.values()))._notify_when_drained()
    site.manager.broadcast("cars", "fine")
    assert await second.receive() == "fine"
    assert "ZeroDivisionError" in caplog.text
