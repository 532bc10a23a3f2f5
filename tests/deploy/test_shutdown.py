"""The stop of a server: peers are told, nothing pending is lost, and clients do not all reconnect at once."""

import asyncio
import os
import threading

import pytest

from fastws import Listener, Server
from fastws.testing import connect, running

from ..lib.raw import close_frame, request
from ..lib.support import Holding, Recorder, eventually, needs_proc

PENDING = 200


async def test_stop_closes_with_1001_and_loses_nothing(dial, serve):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    for number in range(PENDING):
        recorder.sockets[0].send(number.to_bytes(4) * 1024)
    stopping = asyncio.create_task(site.server.stop())
    for number in range(PENDING):
        assert (await raw.frame()).payload == number.to_bytes(4) * 1024
    assert await raw.close_code() == 1001
    assert not stopping.done()
    await raw.send(close_frame(1001))
    assert await raw.eof() == b""
    async with asyncio.timeout(5):
        await stopping
    assert recorder.of("on_close") == [(1001, "")]
    assert recorder.names[-2:] == ["on_unsubscribe", "on_channel_close"]


async def test_stop_waits_no_longer_than_close_timeout(dial, serve):
    site = await serve(recorder := Recorder(), close_timeout=0.2)
    await dial(site.url, "/ws/cars")
    await recorder.until("on_subscribe")
    async with asyncio.timeout(5):
        await site.server.stop()
    assert recorder.of("on_close") == [(1006, "")]
    assert len(site.manager.connections) == 0


async def test_stop_drops_half_handshakes(dial, serve):
    site = await serve()
    raw = await dial(site.url)
    await raw.send(b"GET /ws/cars HTTP/1.1\r\n")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await site.server.stop()
    await raw.eof()


async def test_stop_waits_for_a_handler_that_is_at_work(serve, join):
    entered, release = asyncio.Event(), asyncio.Event()
    finished = []

    class Slow(Listener):
        async def on_message(self, ws, message):
            entered.set()
            await release.wait()
            finished.append(message)

    site = await serve(Slow())
    client = await join(f"{site.url}/ws/cars")
    await client.send("x")
    await entered.wait()
    stopping = asyncio.create_task(site.server.stop())
    assert (await client.closed())[0] == 1001
    release.set()
    await stopping
    assert finished == ["x"]


async def test_an_exception_in_the_block_still_stops_the_server():
    server = Server(port=0)
    server.endpoint("/", Listener())
    with pytest.raises(ZeroDivisionError):
        async with running(server):
            raise ZeroDivisionError
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", server.port)


@needs_proc
async def test_a_hundred_starts_and_stops_leave_no_descriptor_behind():
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    async def once():
        server = Server(port=0)
        server.endpoint("/", Listener())
        async with running(server) as url, connect(url) as client:
            await client.ping()

    await once()
    before, threads = descriptors(), threading.active_count()
    for _ in range(100):
        await once()
    assert descriptors() <= before + 1
    assert threading.active_count() <= threads


# -- the drain


class Farewell(Recorder):
    """Says goodbye to everybody, and records when each connection was closed."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_shutdown(self):
        self.note("on_shutdown")
        for ws in self.sockets:
            ws.send("good-bye")

    def on_close(self, ws, code, reason):
        self.ends.append(asyncio.get_running_loop().time())
        super().on_close(ws, code, reason)


async def test_connections_are_closed_at_the_drain_rate(serve, join):
    rate = 50
    site = await serve(farewell := Farewell(), drain_rate=rate)
    clients = [await join(f"{site.url}/ws/cars") for _ in range(25)]
    await farewell.until("on_subscribe", len(clients))
    begin = asyncio.get_running_loop().time()
    await site.server.stop()
    assert farewell.of("on_close") == [(1001, "")] * len(clients)
    for number, end in enumerate(farewell.ends):
        assert end - begin >= number / rate - 0.002  # the loop's clock has milliseconds


async def test_drain_timeout_beats_a_drain_rate_that_would_take_longer(serve, join):
    site = await serve(farewell := Farewell(), drain_rate=0.1, drain_timeout=0.5)
    clients = [await join(f"{site.url}/ws/cars") for _ in range(20)]
    await farewell.until("on_subscribe", len(clients))
    begin = asyncio.get_running_loop().time()
    async with asyncio.timeout(20):  # and not 200 s
        await site.server.stop()
    assert farewell.of("on_close") == [(1001, "")] * len(clients)
    assert farewell.ends[-1] - begin >= 0.25  # nor at once


async def test_without_a_drain_rate_all_are_closed_at_once(serve, join):
    site = await serve(Recorder(), drain_rate=0, drain_timeout=60)
    clients = [await join(f"{site.url}/ws/cars") for _ in range(20)]
    stopping = asyncio.create_task(site.server.stop())
    await eventually(lambda: not any(ws.is_open for ws in site.manager.listener.sockets))
    await stopping
    assert [await client.closed() for client in clients] == [(1001, "server is stopping")] * len(clients)


async def test_those_who_leave_meanwhile_use_up_none_of_the_rate(serve, join):
    site = await serve(farewell := Farewell(), drain_rate=0.01, drain_timeout=3600)
    clients = [await join(f"{site.url}/ws/cars") for _ in range(4)]
    await farewell.until("on_subscribe", len(clients))
    for ws in (farewell.sockets[0], *farewell.sockets[2:]):
        ws.close(4000)
    async with asyncio.timeout(20):  # and not 300 s
        await site.server.stop()
    assert [(await client.closed())[0] for client in clients] == [4000, 1001, 4000, 4000]


@pytest.mark.parametrize("how", ["argument", "option"])
async def test_a_restart_closes_with_1012(serve, join, how):
    site = await serve(restart=how == "option")
    client = await join(f"{site.url}/ws/cars")
    await site.server.stop(**({"restart": True} if how == "argument" else {}))
    assert await client.closed() == (1012, "server is restarting")


async def test_a_stop_that_is_no_restart_overrides_the_option(serve, join):
    site = await serve(restart=True)
    client = await join(f"{site.url}/ws/cars")
    await site.server.stop(restart=False)
    assert (await client.closed())[0] == 1001


async def test_with_nobody_connected_nothing_is_waited_for():
    server = Server(port=0, drain_rate=0.001, drain_timeout=3600, close_timeout=3600)
    server.endpoint("/", Listener())
    await server.start()
    async with asyncio.timeout(5):
        await server.stop()


async def test_what_on_shutdown_sends_arrives_before_the_close(serve, join):
    site = await serve(farewell := Farewell())
    client = await join(f"{site.url}/ws/cars")
    await farewell.until("on_subscribe")
    await site.server.stop()
    assert await client.receive() == "good-bye"
    assert (await client.closed())[0] == 1001
    assert farewell.names[-4:] == ["on_shutdown", "on_close", "on_unsubscribe", "on_channel_close"]


async def test_on_shutdown_is_called_once_for_each_endpoint_and_awaited(serve, join):
    told, release = [], asyncio.Event()

    class Slow(Listener):
        async def on_shutdown(self):
            told.append("begins")
            await release.wait()
            told.append("ends")

    site = await serve(Slow())
    site.server.endpoint("/other", farewell := Farewell())
    client = await join(f"{site.url}/ws/cars")
    stopping = asyncio.create_task(site.server.stop())
    await farewell.until("on_shutdown")
    assert await client.received() == []  # still open
    release.set()
    await stopping
    assert told == ["begins", "ends"]
    assert farewell.of("on_shutdown") == [()]
    assert (await client.closed())[0] == 1001


async def test_an_on_shutdown_that_takes_too_long_holds_nobody_up(serve, join):
    class Stuck(Listener):
        async def on_shutdown(self):
            await asyncio.Event().wait()

    site = await serve(Stuck(), drain_timeout=0.1, close_timeout=0.1)
    client = await join(f"{site.url}/ws/cars")
    async with asyncio.timeout(10):
        await site.server.stop()
    assert (await client.closed())[0] == 1001


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_on_shutdown_that_raises_is_logged_and_the_stop_goes_on(serve, join, caplog, asynchronous):
    class Fails(Listener):
        def on_shutdown(self):
            if not asynchronous:
                raise ZeroDivisionError

            async def fail():
                raise ZeroDivisionError

            return fail()

    site = await serve(Fails())
    client = await join(f"{site.url}/ws/cars")
    await site.server.stop()
    assert (await client.closed())[0] == 1001
    (record,) = [record for record in caplog.records if record.name == "fastws.manager"]
    assert record.exc_info[0] is ZeroDivisionError
    assert "on_shutdown of /ws/{channel} failed" in record.getMessage()


async def test_a_handshake_during_the_drain_is_503(serve, dial):
    site = await serve(holding := Holding())
    late = await dial(site.url)
    plain = await dial(site.url)
    stopping = asyncio.create_task(site.server.stop())
    await holding.draining.wait()
    await late.send(request("/ws/cars"))
    response = await late.response()
    assert response.status == 503
    assert int(response["Retry-After"]) > 0
    await plain.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await plain.response()).status == 503
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", site.server.port)
    holding.release.set()
    await stopping


async def test_a_handshake_under_way_when_the_stop_begins_succeeds(serve, dial):
    site = await serve(recorder := Recorder())
    connected = await dial(site.url)  # perhaps only by the kernel
    half = await dial(site.url)
    await half.send(request("/ws/cars")[:30])
    stopping = asyncio.create_task(site.server.stop())
    await eventually(lambda: not site.server.is_ready)
    await half.send(request("/ws/cars")[30:])
    await connected.send(request("/ws/cars"))
    for raw in (half, connected):
        assert (await raw.response()).status == 101
        assert await raw.close_code() == 1001
        await raw.send(close_frame(1001))
    await stopping
    assert recorder.of("on_close") == [(1001, ""), (1001, "")]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("drain_rate", -1),
        ("drain_rate", "fast"),
        ("drain_timeout", -1),
        ("drain_timeout", None),
        ("restart", 1),
        ("ready_path", "ready"),
        ("ready_path", True),
    ],
)
def test_what_cannot_work_is_refused_at_start(option, value):
    with pytest.raises(ValueError, match=f"{option}={value!r}") as refused:
        Server(port=0, **{option: value})
    assert "\n" not in str(refused.value)
