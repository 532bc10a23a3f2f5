"""docs/architecture.md#slow-readers: what happens to a peer that does not read, without affecting anybody else."""

import asyncio
from contextlib import suppress

import pytest

from ..lib.raw import BINARY, CLOSE, PING, close_frame, frame
from ..lib.support import Echo, Recorder, eventually, needs_proc, resident

BACKLOG = 64 * 1024
SIZE = 4096
# More than the kernel buffers for one connection, so that the backlog certainly fills up.
ENOUGH = 64 * 1024 * 1024 // SIZE


def numbered(number):
    return number.to_bytes(4) * (SIZE // 4)


def number_of(payload):
    """The number of an undamaged message."""
    number = int.from_bytes(payload[:4])
    assert payload == numbered(number)
    return number


class Stall:
    """`cars` with a reader that stalls and one that keeps up."""

    def __init__(self, site, slow, quick):
        self.manager = site.manager
        self.slow = slow
        self.quick = quick
        self.sent = 0

    def counted(self):
        """The counters of the overflow policies."""
        stats = self.manager.stats
        return {name: stats[name] for name in ("closed_slow", "dropped_oldest", "dropped_newest")}

    async def overflow(self, more=200):
        """Broadcast until a policy has acted, then `more` messages; the fast reader misses none."""
        acted_at = None
        while acted_at is None or self.sent < acted_at + more:
            assert self.sent < ENOUGH, "the slow reader was never noticed"
            self.manager.broadcast("cars", numbered(self.sent))
            assert number_of(await self.quick.receive()) == self.sent
            self.sent += 1
            if acted_at is None and any(self.counted().values()):
                acted_at = self.sent

    async def read(self):
        """The numbers of all messages that the slow reader receives, up to a marker sent now."""
        numbers = []
        await asyncio.sleep(0)
        while True:
            got = await self.slow.frame()
            if got.opcode == CLOSE:
                return numbers, got.payload
            if got.payload == b"marker":
                return numbers, None
            numbers.append(number_of(got.payload))


@pytest.fixture
async def stall(serve, dial, join):
    async def make(overflow):
        site = await serve(max_backlog=BACKLOG, overflow=overflow, ping_interval=0)
        slow = await dial(site.url, "/ws/cars", receive_buffer=4096)
        quick = await join(f"{site.url}/ws/cars")
        await quick.ping()
        return Stall(site, slow, quick)

    return make


async def test_close_ends_a_slow_reader_with_1013_after_whole_messages(stall):
    stalled = await stall("close")
    await stalled.overflow()
    assert stalled.counted() == {"closed_slow": 1, "dropped_oldest": 0, "dropped_newest": 0}
    assert stalled.manager.broadcast("cars", b"marker") == 1
    numbers, close = await stalled.read()
    assert numbers == list(range(len(numbers)))
    assert close == (1013).to_bytes(2) + b"too slow"
    await stalled.slow.send(close_frame(1013))
    assert await stalled.slow.eof() == b""


async def test_close_is_told_to_the_listener_once(serve, dial):
    site = await serve(recorder := Recorder(), max_backlog=BACKLOG, close_timeout=0.2)
    await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    for _ in range(ENOUGH):
        if not ws.send(bytes(SIZE)):
            break
    assert not ws.is_open
    assert site.manager.broadcast("cars", "x") == 0
    await recorder.until("on_channel_close")
    assert len(site.manager.channels) == 0
    assert [call[0] for call in recorder.calls[-3:]] == [
        "on_close",
        "on_unsubscribe",
        "on_channel_close",
    ]
    assert len(recorder.of("on_close")) == 1


async def test_drop_oldest_leaves_out_whole_messages_in_front(stall):
    stalled = await stall("drop_oldest")
    await stalled.overflow()
    reading = asyncio.create_task(stalled.read())
    await eventually(lambda: stalled.manager.broadcast("cars", b"marker") and reading.done())
    numbers, close = await reading
    counted = stalled.counted()
    assert close is None
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == stalled.sent - 1, "the newest must be the last to go"
    assert counted["dropped_oldest"] >= stalled.sent - len(numbers) > 0
    assert counted["closed_slow"] == counted["dropped_newest"] == 0


async def test_drop_newest_leaves_out_what_does_not_fit(stall):
    stalled = await stall("drop_newest")
    await stalled.overflow()
    dropped = stalled.counted()["dropped_newest"]
    reading = asyncio.create_task(stalled.read())
    await eventually(lambda: stalled.manager.broadcast("cars", b"marker") and reading.done())
    numbers, close = await reading
    assert close is None
    assert numbers == sorted(set(numbers))
    assert numbers[: len(numbers) // 2] == list(range(len(numbers) // 2))
    assert len(numbers) == stalled.sent - dropped
    counted = stalled.counted()
    assert counted["closed_slow"] == counted["dropped_oldest"] == 0


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_a_reader_that_catches_up_gets_everything_again(stall, overflow):
    stalled = await stall(overflow)
    await stalled.overflow()
    reading = asyncio.create_task(stalled.read())
    await eventually(lambda: stalled.manager.broadcast("cars", b"marker") and reading.done())
    await stalled.quick.received()
    before = stalled.counted()
    first = stalled.sent
    for number in range(first, first + 50):
        stalled.manager.broadcast("cars", numbered(number))
        got = await stalled.slow.frame()
        while got.payload == b"marker":
            got = await stalled.slow.frame()
        assert number_of(got.payload) == number
    assert stalled.counted() == before


@pytest.mark.parametrize(("overflow", "queued"), [("close", False), ("drop_oldest", True), ("drop_newest", False)])
async def test_send_says_whether_a_message_was_queued(serve, dial, overflow, queued):
    site = await serve(recorder := Recorder(), max_backlog=BACKLOG, overflow=overflow)
    await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    for _ in range(ENOUGH):
        if ws.send(bytes(SIZE)) is False or site.manager.stats["dropped_oldest"]:
            break
    assert ws.send(bytes(SIZE)) is queued


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "drop_newest"])
async def test_one_message_larger_than_the_backlog_goes_to_an_idle_reader(serve, join, overflow):
    site = await serve(max_backlog=BACKLOG, overflow=overflow)
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    big = bytes(range(256)) * 4096
    assert site.manager.broadcast("cars", big) == 1
    assert await client.receive() == big


async def test_a_slow_reader_is_logged(stall, caplog):
    stalled = await stall("close")
    await stalled.overflow(more=0)
    slow = [r for r in caplog.records if r.name.startswith("fastws") and "slow" in r.getMessage()]
    assert len(slow) == 1


@needs_proc
async def test_pings_from_a_peer_that_does_not_read_pile_up_no_memory(serve, dial, join):
    site = await serve(Echo())
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    flood = frame(PING, bytes(125)) * 8000
    before = resident()
    for _ in range(50):
        try:
            async with asyncio.timeout(0.5):
                await raw.send(flood)
        except (TimeoutError, ConnectionError):
            break
    assert resident() - before < 16 << 20
    other = await join(f"{site.url}/ws/cars")
    await other.send("fine")
    assert await other.receive() == "fine"


@needs_proc
async def test_stalled_readers_share_the_bytes_of_what_they_wait_for(serve, dial, join):
    site = await serve(max_backlog=1 << 20, overflow="drop_oldest", ping_interval=0)
    for _ in range(40):
        await dial(site.url, "/ws/cars", receive_buffer=4096)
    quick = await join(f"{site.url}/ws/cars")
    await quick.ping()
    message = bytes(16 * 1024)
    before = resident()
    for _ in range(1500):
        site.manager.broadcast("cars", message)
        await quick.receive()
    assert site.manager.stats["dropped_oldest"] > 0
    # 40 private backlogs of 1 MiB each would be 40 MiB.
    assert resident() - before < 24 << 20


async def test_a_message_is_never_cut_in_half_by_another(serve, dial):
    """A stalled reader gets small and large messages, pings and a close; each arrives whole."""
    site = await serve(recorder := Recorder(), max_backlog=BACKLOG, overflow="drop_oldest")
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    while site.manager.stats["dropped_oldest"] < 500:
        for size in (1, 200, 5000, 60_000):
            ws.send(bytes([size % 251]) * size)
        ws.ping()
        await asyncio.sleep(0)
    ws.close(4000, "enough")
    whole = {size: bytes([size % 251]) * size for size in (1, 200, 5000, 60_000)}
    while True:
        got = await raw.frame()
        assert got.fin
        if got.opcode == CLOSE:
            break
        if got.opcode == BINARY:
            assert got.payload == whole[len(got.payload)]
        else:
            assert got.opcode == PING
    assert got.payload == (4000).to_bytes(2) + b"enough"


@needs_proc
async def test_past_max_arena_stuck_readers_are_copied_out_or_closed(serve, dial, join):
    """Each stuck reader pins the bytes around its own; together they must not pin more than the limit."""
    site = await serve(max_arena=4 << 20, max_backlog=8 << 20, ping_interval=0)
    quick = await join(f"{site.url}/ws/other")
    raws = []
    before = resident()
    for number in range(20):
        raw = await dial(site.url, f"/ws/{number}", receive_buffer=4096)
        raws.append(raw)
        await eventually(lambda number=number: str(number) in site.manager.channels)
        for part in range(800):
            site.manager.broadcast(str(number), numbered(part))
        for _ in range(100):
            site.manager.broadcast("other", bytes(16 * 1024))
            await quick.receive()
    assert resident() - before < 64 << 20
    assert await quick.received() == []
    whole = 0
    for raw in raws:
        with suppress(EOFError):  # closed, and dropped if that was not enough
            for part in range(800):
                got = await raw.frame()
                if got.opcode == CLOSE:
                    assert got.payload == (1013).to_bytes(2) + b"too slow"
                    break
                assert number_of(got.payload) == part
            else:
                whole += 1
    assert site.manager.stats["closed_slow"] == 20 - whole > 0
