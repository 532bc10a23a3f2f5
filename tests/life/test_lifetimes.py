"""What is left of a closed connection, and what handlers may do while others come and go."""

import asyncio
import gc
import threading
import weakref
from contextlib import suppress

from fastws import Listener, Server
from fastws.testing import connect, running

from ..lib.raw import BINARY, TEXT, frame
from ..lib.support import TIMEOUT, Echo, Recorder, eventually, needs_proc, nothing_left, resident


class Watch(Listener):
    """Remembers connections without keeping them."""

    def __init__(self):
        self.alive = weakref.WeakSet()

    def on_open(self, ws):
        ws["self"] = ws  # a cycle through the application's data
        self.alive.add(ws)

    def on_message(self, ws, message):
        return message


async def test_a_closed_connection_is_collected(serve, dial):
    site = await serve(watch := Watch())
    for how in ["reset", "close", "half_close"] * 20:
        raw = await dial(site.url, "/ws/cars")
        await raw.send(frame(TEXT, b"hi") + frame(TEXT, b"half")[:5])
        assert await raw.text() == "hi"
        getattr(raw, how)()
    await eventually(lambda: nothing_left(site))

    def all_collected():
        gc.collect()
        return len(watch.alive) == 0

    await eventually(all_collected)


@needs_proc
async def test_thousands_of_connections_leave_no_memory_behind(serve, dial):
    site = await serve(Watch())

    async def come_and_go(times):
        for _ in range(times):
            raw = await dial(site.url, "/ws/cars")
            await raw.send(frame(TEXT, b"x" * 5000))
            await raw.text()
            raw.reset()
        await eventually(lambda: len(site.manager.connections) == 0)
        gc.collect()
        return resident()

    before = await come_and_go(500)
    assert await come_and_go(2000) - before < 4 << 20


async def test_what_is_sent_to_nobody_is_gone_at_once(serve):
    """Without connections nothing is ever written, so nothing would be released then."""
    site = await serve()
    for size in [10, 1000, 40_000, 1 << 20] * 50:
        assert site.manager.send_to_user("nobody", bytes(size)) == 0
        assert site.manager.send(["gone"], bytes(size)) == 0
        assert nothing_left(site)


async def test_a_server_that_ends_amid_a_flood_forgets_everybody(serve, dial):
    site = await serve()
    raw = await dial(site.url, "/ws/cars")
    flood = frame(BINARY, bytes(60_000)) * 100
    with suppress(BlockingIOError):
        while True:
            flood = flood[raw.sock.send(flood) :]
    reactor = site.server._reactor
    async with asyncio.timeout(TIMEOUT):
        while not reactor.counters["again"]:  # more is there than is read at a time
            await asyncio.sleep(0)
    reactor.shut()
    assert nothing_left(site)


async def test_everybody_may_be_closed_while_iterating_over_the_connections(serve, join):
    class Clear(Recorder):
        def on_message(self, ws, message):
            for other in ws.manager.connections.values():
                other.close(4000, "all out")

    site = await serve(clear := Clear())
    clients = [await join(f"{site.url}/ws/cars") for _ in range(10)]
    await clients[3].send("go")
    assert [await client.closed() for client in clients] == [(4000, "all out")] * 10
    await clear.until("on_channel_close")
    assert len(clear.of("on_close")) == 10


async def test_a_handler_may_broadcast_to_its_own_channel(serve, join):
    class Room(Listener):
        def on_message(self, ws, message):
            ws.manager.broadcast("cars", message)
            return "sent"

    site = await serve(Room())
    ann, bob = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    await ann.send("hi")
    assert [await ann.receive(), await ann.receive()] == ["hi", "sent"]
    assert await bob.received() == ["hi"]


async def test_on_close_may_tell_those_who_stay(serve, join):
    class Farewell(Listener):
        def on_close(self, ws, code, reason):
            for channel in ws.channels:
                ws.manager.broadcast(channel, "one left")

    site = await serve(Farewell())
    ann, bob = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    await ann.close()
    assert await bob.receive() == "one left"


async def test_a_broadcast_from_on_unsubscribe_does_not_reach_who_left(serve, join):
    class Farewell(Recorder):
        def on_unsubscribe(self, ws, channel, subscribers):
            ws.manager.broadcast(channel, f"{subscribers} left")
            super().on_unsubscribe(ws, channel, subscribers)

    site = await serve(farewell := Farewell())
    ann, bob = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    await farewell.until("on_subscribe", 2)
    farewell.sockets[0].unsubscribe("cars")
    assert await ann.received() == []
    assert await bob.received() == ["1 left"]


async def test_a_user_may_be_kicked_from_all_devices(serve, join):
    class Login(Recorder):
        def on_handshake(self, request):
            request.user = request.query["user"]

    site = await serve(login := Login())
    devices = [await join(f"{site.url}/ws/cars?user=ann") for _ in range(3)]
    bob = await join(f"{site.url}/ws/cars?user=bob")
    await login.until("on_subscribe", 4)
    for identity in site.manager.users["ann"]:
        site.manager.connections[identity].close(4000, "kicked")
    assert "ann" not in site.manager.users
    assert [await client.closed() for client in devices] == [(4000, "kicked")] * 3
    assert await login.until("on_user_offline") == ("ann",)
    assert await bob.received() == []


async def test_an_endpoint_may_be_added_while_the_server_runs(serve, join):
    site = await serve()
    site.server.endpoint("/late/{channel}", Echo())
    client = await join(f"{site.url}/late/cars")
    await client.send("hi")
    assert await client.receive() == "hi"


def test_it_runs_on_asyncios_own_loop_too():
    async def main():
        server = Server(port=0)
        server.endpoint("/", Echo())
        async with running(server) as url, connect(f"{url}/") as client:
            for size in (1, 100_000):
                await client.send("x" * size)
                assert await client.receive() == "x" * size

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(main())


def test_two_servers_may_run_in_two_threads():
    failures = []

    async def main():
        server = Server(port=0)
        manager = server.endpoint("/{channel}", Echo())
        async with running(server) as url, connect(f"{url}/cars") as client:
            for number in range(500):
                await client.send(str(number))
                assert await client.receive() == str(number)
                assert manager.broadcast("cars", "all") == 1
                assert await client.receive() == "all"

    def work():
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
