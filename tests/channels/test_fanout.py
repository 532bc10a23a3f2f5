"""Broadcasts to many: the flush works in batches, on several threads, and despite sockets that fail or are full."""

import asyncio
import random
import resource
import socket

import pytest

from ..lib.raw import CLOSE, TEXT, close_frame, request
from ..lib.support import TIMEOUT, Recorder, eventually, nothing_left

MEMBERS = 600


@pytest.fixture(scope="module", autouse=True)
def descriptors():
    """Each connection takes two, one for each end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def enter(site, dial, count, channel="cars", receive_buffer=None):
    raws = [await dial(site.url, receive_buffer=receive_buffer) for _ in range(count)]
    for raw in raws:
        await raw.send(request(f"/ws/{channel}"))
    for raw in raws:
        assert (await raw.response()).status == 101
    return raws


@pytest.mark.parametrize("flush_threads", [1, 2, 4])
async def test_every_member_receives_every_message_in_order(serve, dial, flush_threads):
    site = await serve(flush_threads=flush_threads, ping_interval=0)
    raws = await enter(site, dial, MEMBERS)
    sent = [f"{number}:" + "x" * (number % 50) ** 2 for number in range(60)]
    for number, message in enumerate(sent):
        assert site.manager.broadcast("cars", message) == MEMBERS
        if number % 10 == 0:
            await asyncio.sleep(0)
    for raw in raws:
        assert [await raw.text() for _ in sent] == sent
    for raw in raws:
        raw.reset()
    await eventually(lambda: nothing_left(site))


@pytest.mark.parametrize("flush_threads", [1, 4])
async def test_members_that_vanish_or_stall_during_a_flush_cost_the_others_nothing(serve, dial, flush_threads):
    listener = Recorder()
    options = {"max_backlog": 128 << 10, "ping_interval": 0, "close_timeout": 0.5}
    site = await serve(listener, flush_threads=flush_threads, **options)
    source = random.Random(flush_threads)
    steady = await enter(site, dial, 100)
    stalled = await enter(site, dial, 60, receive_buffer=4096)
    vanishing = await enter(site, dial, 100)
    for raw in steady:
        raw.numbers = []
    received = [asyncio.create_task(read_until_close(raw)) for raw in steady]
    number = 0
    while vanishing or len(listener.of("on_close")) < 160:
        assert number < 5000, "the stalled were never noticed"
        for raw in [vanishing.pop() for _ in range(min(len(vanishing), source.randint(0, 9)))]:
            raw.reset()
        site.manager.broadcast("cars", f"{number}:" + "x" * source.randint(0, 60_000))
        number += 1
        # The steady readers keep up; only stalled ones may be closed for being slow.
        await eventually(lambda sent=number: all(len(raw.numbers) == sent for raw in steady))
    assert site.manager.stats["closed_slow"] == 60
    assert site.manager.broadcast("cars", "done") == 100
    for ws in site.manager.connections.values():
        ws.close()
    await asyncio.gather(*received)
    assert all(raw.numbers == list(range(number)) for raw in steady)
    for raw in [*steady, *stalled]:
        raw.close()
    await eventually(lambda: nothing_left(site))


async def read_until_close(raw):
    """Record the numbers of all messages, and answer the close frame."""
    while True:
        got = await raw.frame()
        if got.opcode == CLOSE:
            await raw.send(close_frame(1000))
            return
        assert got.opcode == TEXT
        head, _, rest = got.payload.partition(b":")
        if head != b"done":
            assert rest.strip(b"x") == b""
            raw.numbers.append(int(head))


@pytest.mark.parametrize(
    ("overflow", "counter"),
    [("close", "closed_slow"), ("drop_oldest", "dropped_oldest"), ("drop_newest", "dropped_newest")],
)
async def test_threads_broadcast_at_once_while_members_stall_and_vanish(serve, dial, overflow, counter):
    """A race between flush threads, or between them and the loop's, would lose, duplicate or damage frames."""
    threads, each = 3, 150
    site = await serve(flush_threads=2, max_backlog=32 << 10, overflow=overflow, ping_interval=0, close_timeout=60)
    steady = await enter(site, dial, 150)
    chosen = [ws.id for ws in site.manager.subscribers("cars")][::2]
    # The kernel would buffer megabytes for stalled readers; connections inherit this.
    site.server._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stalled = await enter(site, dial, 20, receive_buffer=4096)
    vanishing = await enter(site, dial, 80)

    def talk(thread):
        for number in range(each):
            message = f"{thread} {number} " + "x" * (number * 37 % 2000)
            site.manager.broadcast_threadsafe("cars", message).result(TIMEOUT)
            site.manager.send_threadsafe(chosen, f"chosen{thread} {number} ").result(TIMEOUT)

    reading = [asyncio.create_task(read_in_order(raw)) for raw in steady]
    talking = [asyncio.create_task(asyncio.to_thread(talk, thread)) for thread in range(threads)]
    for raw in vanishing:
        await asyncio.sleep(0.002)
        raw.reset()
    await asyncio.gather(*talking)
    stats = site.manager.stats
    assert [name for name in stats if name.startswith(("closed", "dropped")) and stats[name]] == [counter]
    reading += [asyncio.create_task(read_in_order(raw)) for raw in stalled]
    for ws in site.manager.connections.values():
        ws.close()
    heard = await asyncio.gather(*reading)
    all_of_them = {str(thread): list(range(each)) for thread in range(threads)}
    chosen_ones = {f"chosen{thread}": list(range(each)) for thread in range(threads)}
    assert sorted(map(len, heard[:150])) == [threads] * 75 + [2 * threads] * 75
    assert all(numbers in (all_of_them, all_of_them | chosen_ones) for numbers in heard[:150])
    assert all(numbers == sorted(set(numbers)) for senders in heard[150:] for numbers in senders.values())
    await eventually(lambda: nothing_left(site))


async def read_in_order(raw):
    """The numbers received, by sender, up to the close frame, which is answered; every message must be whole."""
    senders = {}
    while (got := await raw.frame()).opcode != CLOSE:
        sender, number, rest = got.payload.decode().split(" ")
        assert rest == "x" * (0 if sender.startswith("chosen") else int(number) * 37 % 2000)
        senders.setdefault(sender, []).append(int(number))
    await raw.send(close_frame(1000))
    assert await raw.eof() == b""
    raw.close()
    return senders


async def test_a_broadcast_to_many_does_not_keep_an_echo_waiting(serve, dial, join):
    site = await serve(max_backlog=64 << 20, ping_interval=0)
    await enter(site, dial, MEMBERS, receive_buffer=4096)
    client = await join(f"{site.url}/ws/other")
    for _ in range(50):
        site.manager.broadcast("cars", bytes(5000))
        assert await client.ping() < 5


async def test_the_members_of_a_large_channel_leave_in_any_order(serve, dial):
    site = await serve(recorder := Recorder(), ping_interval=0)
    raws = await enter(site, dial, 300)
    await recorder.until("on_subscribe", 300)
    random.Random(0).shuffle(raws)
    for left in range(299, -1, -1):
        raws.pop().reset()
        await recorder.until("on_unsubscribe", 300 - left)
        assert site.manager.broadcast("cars", "still here?") == left
    assert [count for _, _, count in recorder.of("on_unsubscribe")] == list(range(299, -1, -1))
    await eventually(lambda: nothing_left(site))
