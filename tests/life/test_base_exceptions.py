"""Whatever a handler raises, other connections lose no events; what ends the program does so after the batch."""

import asyncio
import signal
import sys

import pytest

from ..lib.raw import TEXT, Raw, frame
from ..lib.support import Recorder, eventually, nothing_left

NEIGHBOURS = 38


class Grave(BaseException):
    """Not an Exception."""


class Raising(Recorder):
    """Raises in one handler, if the message or the path says so."""

    def __init__(self, name, error):
        super().__init__()
        self.name, self.error = name, error

    def fail(self, name, *hints):
        if name == self.name and "bad" in hints:
            raise self.error

    def on_handshake(self, request):
        self.fail("on_handshake", request.path_parameters["channel"])

    def on_open(self, ws):
        self.fail("on_open", *ws.path_parameters.values())

    def on_message(self, ws, message):
        super().on_message(ws, message)
        self.fail("on_message", message)
        return message

    def on_close(self, ws, code, reason):
        super().on_close(ws, code, reason)
        self.fail("on_close", reason)

    def on_subscribe(self, ws, channel, subscribers):
        self.fail("on_subscribe", channel)

    def on_unsubscribe(self, ws, channel, subscribers):
        self.fail("on_unsubscribe", channel)


class AsyncRaising(Raising):
    async def on_message(self, ws, message):
        await asyncio.sleep(0)
        return Raising.on_message(self, ws, message)

    async def on_handshake(self, request):
        await asyncio.sleep(0)
        Raising.on_handshake(self, request)


@pytest.fixture(params=[Grave, GeneratorExit, StopIteration, asyncio.CancelledError])
def error(request):
    return request.param


@pytest.fixture(params=[Raising, AsyncRaising])
def kind(request):
    return request.param


async def test_neighbours_in_the_same_batch_are_answered(serve, dial, kind, error):
    site = await serve(listener := kind("on_message", error))
    bad = await dial(site.url, "/ws/cars")
    others = [await dial(site.url, "/ws/cars") for _ in range(NEIGHBOURS)]
    # Without a turn of the loop in between: the server gets them all at once.
    bad.sock.send(frame(TEXT, b"bad"))
    for other in others:
        other.sock.send(frame(TEXT, b"fine"))
    for other in others:
        assert await other.text() == "fine"
    assert await bad.close_code() == 1011
    (told,) = await listener.until("on_error")
    assert isinstance(told, Exception | asyncio.CancelledError)
    assert isinstance(told, error) or isinstance(told.__cause__, error)
    assert listener.names.count("on_close") <= 1


async def test_a_handshake_fails_with_500(serve, dial, kind, error):
    site = await serve(kind("on_handshake", error))
    raw = await dial(site.url)
    await raw.send(b"GET /ws/bad HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")  # fmt: skip
    assert (await raw.response()).status == 500
    raw.close()
    await eventually(lambda: nothing_left(site))


@pytest.mark.parametrize("name", ["on_open", "on_subscribe", "on_unsubscribe", "on_close"])
async def test_other_handlers_cost_their_connection_and_leave_nothing(serve, dial, name, error):
    site = await serve(listener := Raising(name, error))
    raw = await dial(site.url, "/ws/bad")
    if name in ("on_open", "on_subscribe"):
        assert await raw.close_code() == 1011
    await raw.send(frame(0x8, b"\x03\xe8bad"))
    await raw.eof()
    raw.close()
    await listener.until("on_close")
    await eventually(lambda: nothing_left(site))
    assert site.manager.stats["channels"] == 0
    assert site.manager.channels == {}
    neighbour = await dial(site.url, "/ws/cars")
    await neighbour.send(frame(TEXT, b"fine"))
    assert await neighbour.text() == "fine"


async def test_timers_go_on_after_a_handler_that_a_timer_called(serve, dial):
    """on_close, called from the wheel of deadlines, raises something unexpected."""
    site = await serve(listener := Raising("on_close", Grave), idle_timeout=0.2, close_timeout=0.05)
    raws = [await dial(site.url, "/ws/cars") for _ in range(20)]
    await listener.until("on_close", times=20)
    for raw in raws:
        raw.close()
    await eventually(lambda: nothing_left(site))


STOPPING = """
from fastws import Listener, Server


class Stopping(Listener):
    answered = 0

    def on_message(self, ws, message):
        if message == "stop":
            raise {error}
        Stopping.answered += 1
        return message

    def on_close(self, ws, code, reason):
        print("closed", code, flush=True)

server = Server(port=0, close_timeout=1)
server.endpoint("/ws", Stopping())
try:
    server.run(on_start=lambda server: print(server.port, flush=True))
except BaseException as error:
    print("ended by", type(error).__name__, "after", Stopping.answered, flush=True)
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
async def test_what_ends_the_program_stops_the_server_after_the_batch(error):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STOPPING.format(error=error), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            port = int(await process.stdout.readline())
            raws = [await Raw.open(f"ws://127.0.0.1:{port}") for _ in range(20)]
            for raw in raws:
                await raw.upgrade("/ws")
            process.send_signal(signal.SIGSTOP)  # so that it meets all of it at once
            raws[0].sock.send(frame(TEXT, b"stop"))
            for raw in raws[1:]:
                raw.sock.send(frame(TEXT, b"fine"))
            process.send_signal(signal.SIGCONT)
            for raw in raws[1:]:
                assert await raw.text() == "fine"
                assert await raw.close_code() == 1001
                await raw.send(frame(0x8, b"\x03\xe9"))
            lines = (await process.stdout.read()).decode().splitlines()
            for raw in raws:
                raw.close()
            assert lines[-1] == f"ended by {error} after 19"
            assert lines.count("closed 1001") == 19
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
