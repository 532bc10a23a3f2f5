"""Signals stop a server cleanly, and a second one at once."""

import asyncio
import signal

import pytest

from ..lib.program import line, program
from ..lib.raw import Raw, close_frame

PENDING = 200

PROGRAM = f"""
    import logging
    from fastws import Listener, Server

    class Pour(Listener):
        def on_open(self, ws):
            print("open", flush=True)

        def on_message(self, ws, message):
            for number in range({PENDING}):
                ws.send(number.to_bytes(4) * 1024)
            print("sent", flush=True)

        def on_close(self, ws, code, reason):
            print("close", code, flush=True)

    class Announce(Server):
        async def start(self):
            await super().start()
            print("port", self.port, flush=True)

    server = Announce(port=0)
    server.endpoint("/ws", Pour())
    server.run()
    print("returned", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
async def test_a_signal_closes_with_1001_and_loses_nothing(name):
    async with program(PROGRAM) as process:
        port = int((await line(process)).removeprefix("port "))
        raw = await Raw.open(f"ws://127.0.0.1:{port}", receive_buffer=4096)
        await raw.upgrade("/ws")
        assert await line(process) == "open"
        await raw.send(b"\x81\x80\0\0\0\0")
        assert await line(process) == "sent"
        process.send_signal(getattr(signal, name))
        for number in range(PENDING):
            assert (await raw.frame()).payload == number.to_bytes(4) * 1024
        assert await raw.close_code() == 1001
        await raw.send(close_frame(1001))
        assert await raw.eof() == b""
        raw.close()
        assert await line(process) == "close 1001"
        assert await line(process) == "returned"
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
        assert errors.decode() == ""
        assert process.returncode == 0


async def test_a_second_signal_ends_it_at_once():
    async with program(PROGRAM) as process:
        port = int((await line(process)).removeprefix("port "))
        raw = await Raw.open(f"ws://127.0.0.1:{port}")
        await raw.upgrade("/ws")
        assert await line(process) == "open"
        process.send_signal(signal.SIGTERM)
        assert await raw.close_code() == 1001
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):  # and not the close_timeout of 10 s
            assert await line(process) == "close 1006"
            assert await line(process) == "returned"
            await process.wait()
        raw.close()
        assert process.returncode == 0


STUCK = """
    import asyncio
    from fastws import Listener, Server

    class Stuck(Listener):
        async def on_message(self, ws, message):
            print("message", flush=True)
            await asyncio.sleep(3600)

        async def on_shutdown(self):
            print("on_shutdown", flush=True)
            {shutdown}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
            print("lifespan", flush=True)
            {lifespan}
            await send({{"type": "lifespan.shutdown.complete"}})

    server = Server(port=0, {options}, http=app)
    server.endpoint("/ws", Stuck())
    server.run(on_start=lambda server: print("port", server.port, flush=True))
    print("returned", flush=True)
"""
FOR_EVER = "await asyncio.sleep(3600)"


@pytest.mark.parametrize(
    ("stuck", "said"),
    [
        ({"shutdown": FOR_EVER, "options": "drain_timeout=3600"}, ["on_shutdown", "lifespan"]),
        ({"options": "drain_rate=0.001, drain_timeout=3600"}, ["on_shutdown", "lifespan"]),
        ({"options": "close_timeout=3600"}, ["on_shutdown", "lifespan"]),
        ({"lifespan": FOR_EVER, "options": "close_timeout=0.1"}, ["on_shutdown", "lifespan"]),
    ],
    ids=["on_shutdown", "drain_rate", "handler", "lifespan"],
)
async def test_a_second_signal_ends_whatever_is_stuck(stuck, said):
    async with program(STUCK.format(**{"shutdown": "pass", "lifespan": "pass", **stuck})) as process:
        port = int((await line(process)).removeprefix("port "))
        raws = [await Raw.open(f"ws://127.0.0.1:{port}") for _ in range(2)]
        for raw in raws:
            await raw.upgrade("/ws")
        await raws[0].send(b"\x81\x80\0\0\0\0")
        assert await line(process) == "message"
        process.send_signal(signal.SIGTERM)
        assert await line(process) == said[0]
        if "lifespan" in stuck:
            assert await line(process) == said[1]
        process.send_signal(signal.SIGTERM)
        if "lifespan" not in stuck:
            assert await line(process) == said[1]
        async with asyncio.timeout(10):
            assert await line(process) == "returned"
            assert await process.wait() == 0
        for raw in raws:
            raw.close()
