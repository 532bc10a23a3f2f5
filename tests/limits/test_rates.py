"""Rate limits of one connection: a bucket of one second's worth, then a pause or close 1008."""

import asyncio
import time

import pytest

from fastws import ConfigurationError, Listener, ProtocolError, Server

from ..lib.raw import CLOSE, CONTINUATION, PING, TEXT, close_frame, frame
from ..lib.support import Echo, Recorder, eventually, nothing_left, resident

HARDLY_ANY = 1e-30  # per second, so low that whoever exceeds it stays paused


class Numbers(Listener):
    """Records when each message was handled."""

    def __init__(self):
        self.times = []
        self.messages = []

    def on_message(self, ws, message):
        self.times.append(time.monotonic())
        self.messages.append(message)


async def test_messages_past_the_rate_come_later_and_in_order(serve, join):
    site = await serve(numbers := Numbers(), max_message_rate=50)
    client = await join(f"{site.url}/ws/cars")
    began = time.monotonic()
    for number in range(150):
        await client.send(str(number))
    await eventually(lambda: len(numbers.messages) == 150)
    assert numbers.messages == [str(number) for number in range(150)]
    assert numbers.times[-1] - began >= 1.9  # 50 at once, 100 at 50 a second
    in_the_first_second = sum(at - began < 1 for at in numbers.times)
    assert in_the_first_second <= 102
    assert site.manager.stats["throttled"] >= 2


async def test_bytes_past_the_rate_come_later(serve, join):
    site = await serve(numbers := Numbers(), max_byte_rate=100_000)
    client = await join(f"{site.url}/ws/cars")
    began = time.monotonic()
    for _ in range(30):
        await client.send(bytes(10_000))
    await eventually(lambda: len(numbers.messages) == 30)
    assert numbers.times[-1] - began >= 1.4  # some of it after a read of more than a second's worth
    assert site.manager.stats["throttled"] >= 1


async def test_what_is_under_the_rate_is_never_held_up(serve, join):
    site = await serve(Echo(), max_message_rate=100, max_byte_rate=100_000)
    client = await join(f"{site.url}/ws/cars")
    for number in range(100):
        await client.send(str(number))
        assert await client.receive() == str(number)
    assert site.manager.stats["throttled"] == 0


async def test_unused_time_saves_up_one_second_and_no_more(serve, join):
    site = await serve(numbers := Numbers(), max_message_rate=20)
    client = await join(f"{site.url}/ws/cars")
    await asyncio.sleep(2.1)
    began = time.monotonic()
    for number in range(30):
        await client.send(str(number))
    await eventually(lambda: len(numbers.messages) == 30)
    assert numbers.times[-1] - began >= 0.4


@pytest.mark.parametrize("options", [{"max_message_rate": 5}, {"max_byte_rate": 100}])
async def test_close_as_the_policy_is_1008(serve, dial, options):
    site = await serve(recorder := Recorder(), over_rate="close", **options)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"0123456789") * 100)
    assert await raw.closing() == (1008, "rate limit exceeded")
    assert (await recorder.until("on_close"))[0] == 1006
    (error,) = await recorder.until("on_error")
    assert isinstance(error, ProtocolError)
    assert error.code == 1008
    assert len(recorder.of("on_message")) <= 6
    await raw.eof()
    raw.close()
    await eventually(lambda: nothing_left(site))


async def test_pings_and_pongs_count(serve, dial):
    site = await serve(Echo(), max_message_rate=10, over_rate="close")
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(PING, b"x") * 50)
    pongs = 0
    while (got := await raw.frame()).opcode != CLOSE:
        pongs += 1
    assert got.payload[:2] == (1008).to_bytes(2, "big")
    assert pongs <= 11


async def test_nobody_else_is_held_up_and_the_paused_still_hears(serve, join):
    site = await serve(Echo(), max_message_rate=HARDLY_ANY)
    paused, other = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    for _ in range(3):
        await paused.send("hi")
    assert await paused.receive() == "hi"
    await eventually(lambda: site.manager.stats["throttled"] == 1)
    await other.send("hello")
    assert await other.receive() == "hello"
    assert site.manager.broadcast("cars", "news") == 2
    assert await paused.receive() == await other.receive() == "news"
    for ws in site.manager.connections.values():
        ws.close()  # whose answer is read at once


async def test_a_paused_peer_can_be_closed_at_once(serve, join):
    site = await serve(recorder := Recorder(), max_message_rate=HARDLY_ANY)
    client = await join(f"{site.url}/ws/cars")
    await client.send("hi")
    await eventually(lambda: site.manager.stats["throttled"] == 1)
    await client.send("never read")
    recorder.sockets[0].close(4000, "enough")
    assert await client.closed() == (4000, "enough")
    assert (await recorder.until("on_close"))[0] == 4000
    assert recorder.of("on_message") == [("hi",)]


async def test_a_paused_peer_that_vanishes_is_noticed(serve, dial):
    site = await serve(recorder := Recorder(), max_message_rate=HARDLY_ANY)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"hi") * 3)
    await eventually(lambda: site.manager.stats["throttled"] == 1)
    raw.reset()
    assert (await recorder.until("on_close"))[0] == 1006
    await eventually(lambda: nothing_left(site))


async def test_a_close_waits_behind_what_was_sent_before_it(serve, dial):
    site = await serve(recorder := Recorder(), max_message_rate=20)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"hi") * 40 + close_frame(1000, b"bye"))
    assert await raw.closing() == (1000, "")
    assert await recorder.until("on_close") == (1000, "bye")
    assert len(recorder.of("on_message")) == 40


async def test_the_rate_and_an_async_handler_hold_up_together(serve, join):
    class Slow(Numbers):
        async def on_message(self, ws, message):
            await asyncio.sleep(0.001)
            super().on_message(ws, message)

    site = await serve(slow := Slow(), max_message_rate=100)
    client = await join(f"{site.url}/ws/cars")
    for number in range(250):
        await client.send(str(number))
    await eventually(lambda: len(slow.messages) == 250)
    assert slow.messages == [str(number) for number in range(250)]


async def test_a_paused_flood_costs_no_memory(serve, dial):
    site = await serve(Echo(), max_message_rate=HARDLY_ANY)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"hi"))
    await eventually(lambda: site.manager.stats["throttled"] == 1)
    flood = frame(TEXT, bytes(1000)) * 40_000
    before = resident()
    flooding = asyncio.create_task(raw.send(flood))
    assert await asyncio.wait([flooding], timeout=1) == (set(), {flooding})  # the socket is full
    flooding.cancel()
    assert resident() - before < 4 << 20


@pytest.mark.parametrize("options", [{"max_message_rate": -1}, {"max_byte_rate": "x"}, {"over_rate": "drop"}])
def test_a_rate_that_cannot_work_stops_at_start(options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=name):
        Server(**options)


async def test_every_fragment_counts(serve, dial):
    site = await serve(Recorder(), max_message_rate=100, over_rate="close")
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, fin=False) * 200)
    assert await raw.closing() == (1008, "rate limit exceeded")


async def test_fragments_past_the_rate_wait(serve, dial):
    site = await serve(recorder := Recorder(), max_message_rate=HARDLY_ANY)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y") + frame(TEXT, b"late"))
    await eventually(lambda: site.manager.stats["throttled"] == 1)
    assert recorder.of("on_message") == []


async def test_a_fragmented_message_under_the_rate_arrives(serve, dial):
    site = await serve(Echo(), max_message_rate=100, over_rate="close")
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"0", fin=False) + frame(CONTINUATION, b"1", fin=False) * 88 + frame(CONTINUATION, b"2"))
    assert await raw.text() == "0" + "1" * 88 + "2"
