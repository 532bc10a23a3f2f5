"""The end of a server: peers are told, nothing pending is lost, signals stop it cleanly."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import asynccontextmanager

import pytest

from fastws import Listener, Server
from fastws.testing import connect, running

from .raw import Raw, close_frame
from .support import Recorder, needs_proc

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


@asynccontextmanager
async def program(source):
    """Run Python source as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        "-c",
        textwrap.dedent(source),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process):
    async with asyncio.timeout(10):
        return (await process.stdout.readline()).decode().strip()


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
