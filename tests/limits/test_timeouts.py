"""Silent peers: detected by ping, by the idle timeout, and by an unanswered close."""

import asyncio
import time
from contextlib import suppress

import pytest

from fastws import Listener

from ..lib.raw import CLOSE, PING, PONG, TEXT, close_frame, frame
from ..lib.support import Echo, Recorder

QUIET = {"ping_interval": 0, "idle_timeout": 0}


async def test_a_half_open_peer_is_found_by_ping(serve, dial, join):
    site = await serve(recorder := Recorder(), ping_interval=0.2, ping_timeout=0.2)
    raw = await dial(site.url, "/ws/cars")
    other = await join(f"{site.url}/ws/cars")
    assert (await raw.frame()).opcode == PING
    await recorder.until("on_close")
    assert recorder.of("on_close")[0][0] == 1006
    await raw.eof()
    await recorder.until("on_unsubscribe")
    assert len(site.manager.connections) == 1
    assert await other.received() == []


async def test_a_peer_that_answers_pings_stays(serve, dial):
    site = await serve(recorder := Recorder(), ping_interval=0.1, ping_timeout=0.4)
    raw = await dial(site.url, "/ws/cars")
    for _ in range(8):
        ping = await raw.frame()
        assert ping.opcode == PING
        await raw.send(frame(PONG, ping.payload))
    assert "on_close" not in recorder.names
    assert len(site.manager.connections) == 1


async def pong(peer, payload):
    """Send a pong, and wait until it was read."""
    await peer.send(frame(PONG, payload) + frame(TEXT, b"done"))
    while (await peer.frame()).opcode != TEXT:
        pass


async def test_one_ping_at_a_time_is_timed_and_only_its_pong_counts(serve, dial):
    site = await serve(Echo(), ping_interval=0.1, ping_timeout=20)
    timed = await dial(site.url, "/ws/cars")
    ping = await timed.frame()
    other = await dial(site.url, "/ws/cars")
    await pong(other, (await other.frame()).payload)
    assert sum(site.server.stats["pings"]) == 0
    await pong(timed, ping.payload)
    stats = site.server.stats
    assert sum(stats["pings"]) >= 1
    assert 0 < stats["ping_seconds"] < 20


async def test_a_pong_that_nobody_asked_for_counts_nothing(serve, dial):
    site = await serve(Echo(), ping_interval=0)
    await pong(await dial(site.url, "/ws/cars"), b"unasked")
    assert sum(site.server.stats["pings"]) == 0


async def test_a_peer_whose_input_waits_for_us_is_not_dead(serve, dial):
    release = asyncio.Event()

    class Slow(Listener):
        async def on_message(self, ws, message):
            await release.wait()
            return message

    site = await serve(Slow(), ping_interval=0.1, ping_timeout=0.1)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"hi") * 200)
    # Pings that the peer answers, but its answers are not read.
    with suppress(TimeoutError):
        async with asyncio.timeout(0.6):
            while True:
                got = await raw.frame()
                await raw.send(frame(PONG, got.payload))
    assert len(site.manager.connections) == 1
    release.set()
    texts = 0
    while texts < 200:
        texts += (await raw.frame()).opcode == TEXT


async def test_a_loop_that_stood_still_is_not_held_against_the_peers(serve, dial):
    class Blocking(Listener):
        def on_message(self, ws, message):
            time.sleep(1.2)

    site = await serve(Blocking(), ping_interval=0.5, ping_timeout=0.5)
    raws = [await dial(site.url, "/ws/cars") for _ in range(5)]
    for raw in raws:
        assert (await raw.frame()).opcode == PING
    # Their answers arrive while a handler blocks everything.
    await raws[0].send(frame(PONG) + frame(TEXT, b"block"))
    for raw in raws[1:]:
        await raw.send(frame(PONG))
    for raw in raws:
        assert (await raw.frame()).opcode == PING
        await raw.send(frame(PONG))
    assert len(site.manager.connections) == 5


async def test_a_peer_that_talks_needs_no_pong(serve, dial):
    site = await serve(Echo(), ping_interval=0.2, ping_timeout=0.2)
    raw = await dial(site.url, "/ws/cars")
    loop = asyncio.get_running_loop()
    until, pings = loop.time() + 1, 0
    while loop.time() < until:
        await raw.send(frame(TEXT, b"hi"))
        got = await raw.frame()
        pings += got.opcode == PING
        assert got.opcode in (PING, TEXT)
        await asyncio.sleep(0.02)
    assert len(site.manager.connections) == 1


async def test_ping_sends_a_ping_now(serve, dial):
    site = await serve(recorder := Recorder(), **QUIET)
    raw = await dial(site.url, "/ws/cars")
    await recorder.until("on_subscribe")
    recorder.sockets[0].ping()
    got = await raw.frame()
    assert got.opcode == PING
    await raw.send(frame(PONG, got.payload) + frame(TEXT, b"hi"))
    await recorder.until("on_message")


async def test_an_idle_peer_is_closed(serve, dial):
    site = await serve(recorder := Recorder(), idle_timeout=0.2, ping_interval=0)
    raw = await dial(site.url, "/ws/cars")
    code, _ = await raw.closing()
    assert code in (1000, 1001, 1008)
    await raw.send(close_frame(code))
    await raw.eof()
    assert (await recorder.until("on_close"))[0] == code


async def test_a_peer_that_sends_messages_is_not_idle(serve, dial):
    site = await serve(Echo(), idle_timeout=1, ping_interval=0)
    raw = await dial(site.url, "/ws/cars")
    loop = asyncio.get_running_loop()
    until = loop.time() + 2
    while loop.time() < until:
        await raw.send(frame(TEXT, b"hi"))
        assert await raw.text() == "hi"
        await asyncio.sleep(0.05)
    assert len(site.manager.connections) == 1


async def test_the_idle_timeout_is_settable_for_one_connection(serve, dial):
    class Strict(Recorder):
        def on_open(self, ws):
            super().on_open(ws)
            assert ws.idle_timeout == 300
            if ws.request.query.get("short"):
                ws.idle_timeout = 0.2
                assert ws.idle_timeout == pytest.approx(0.2)

    site = await serve(strict := Strict(), ping_interval=0)
    short = await dial(site.url, "/ws/cars?short=1")
    await dial(site.url, "/ws/cars")
    assert (await short.frame()).opcode == CLOSE
    assert len(strict.sockets) == 2
    assert [ws.is_open for ws in strict.sockets] == [False, True]


async def test_a_peer_that_does_not_answer_a_close_is_dropped(serve, dial):
    site = await serve(recorder := Recorder(), close_timeout=0.2, **QUIET)
    raw = await dial(site.url, "/ws/cars")
    await recorder.until("on_subscribe")
    recorder.sockets[0].close(4000, "bye")
    assert await raw.closing() == (4000, "bye")
    await raw.eof()
    assert await recorder.until("on_close") == (1006, "")


async def test_a_peer_that_reads_nothing_at_all_is_dropped_after_a_close(serve, dial):
    site = await serve(recorder := Recorder(), close_timeout=0.2, max_backlog=64 << 20, **QUIET)
    await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    ws = recorder.sockets[0]
    for _ in range(32):
        ws.send(bytes(1 << 20))
    ws.close(4000)
    assert await recorder.until("on_close") == (1006, "")


@pytest.mark.parametrize(
    "option",
    ["idle_timeout", "ping_interval", "ping_timeout", "handshake_timeout", "close_timeout"],
)
@pytest.mark.parametrize("value", [-1, "soon", float("nan")])
async def test_a_timeout_that_is_no_duration_is_refused_at_once(serve, option, value):
    with pytest.raises((ValueError, TypeError), match=option):
        await serve(Listener(), **{option: value})


@pytest.mark.parametrize("value", [-1, "soon", float("nan")])
async def test_a_bad_idle_timeout_of_one_connection_is_refused(serve, join, value):
    site = await serve(recorder := Recorder())
    await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    with pytest.raises((ValueError, TypeError)):
        ws.idle_timeout = value
    assert ws.idle_timeout == 300


async def test_an_endpoints_timeouts_override_the_servers(serve, dial):
    site = await serve(**QUIET)
    site.server.endpoint("/strict", recorder := Recorder(), idle_timeout=0.2)
    raw = await dial(site.url, "/strict")
    await dial(site.url, "/ws/cars")
    assert (await raw.frame()).opcode == CLOSE
    assert not recorder.sockets[0].is_open
    assert len(site.manager.connections) == 1
