"""max_inbound: the unfinished input of all peers is limited, and whoever holds the most is closed first."""

import asyncio

import pytest

from fastws import Listener

from ..lib.raw import BINARY, CONTINUATION, TEXT, frame, request
from ..lib.support import Echo, eventually, nothing_left

MIB = 1 << 20
UNFINISHED = frame(BINARY, bytes(256 << 10), fin=False)
TOO_MUCH = 1013, "too much unfinished input"


pytestmark = pytest.mark.usefixtures("wire")


def held(site):
    return site.server._reactor.counters["inbound_bytes"]


async def outcome(raw):
    """The code that a connection is closed with, or None if it still answers."""
    await raw.send(frame(CONTINUATION))
    got = await raw.frame()
    return int.from_bytes(got.payload[:2]) if got.opcode == 8 else None


async def test_unfinished_messages_are_bounded_all_together(serve, dial, caplog):
    site = await serve(Echo(), max_inbound=MIB)
    raws = [await dial(site.url, "/ws/cars") for _ in range(40)]
    for raw in raws:
        await raw.send(UNFINISHED)
    await eventually(lambda: (40 - site.manager.stats["closed_unfinished"]) * len(UNFINISHED) <= MIB)
    assert held(site) <= MIB
    ends = [await outcome(raw) for raw in raws]
    closed = ends.count(1013)
    assert set(ends) == {None, 1013}
    assert closed == site.manager.stats["closed_unfinished"]
    assert 40 * len(UNFINISHED) - closed * len(UNFINISHED) <= MIB
    logged = [record for record in caplog.records if "max_inbound exceeded" in record.getMessage()]
    assert len(logged) == closed
    assert len({record.connection for record in logged}) == closed
    for raw in raws:
        raw.close()
    await eventually(lambda: nothing_left(site))


async def test_the_largest_goes_and_others_stay(serve, dial):
    site = await serve(Echo(), max_inbound=2 * MIB, max_message_size=4 * MIB)
    small = [await dial(site.url, "/ws/cars") for _ in range(20)]
    for raw in small:
        await raw.send(frame(BINARY, bytes(10_000), fin=False))
    large = await dial(site.url, "/ws/cars")
    for number in range(8):
        await large.send(frame(CONTINUATION if number else BINARY, bytes(MIB // 3), fin=False))
    assert await large.closing() == TOO_MUCH
    for raw in small:
        assert await outcome(raw) is None
    assert site.manager.stats["closed_unfinished"] == 1


async def test_messages_that_wait_for_a_busy_handler_count(serve, dial):
    class Busy(Listener):
        async def on_message(self, ws, message):
            await asyncio.Event().wait()

    site = await serve(Busy(), max_inbound=MIB, max_message_size=MIB, close_timeout=0.2)
    raws = [await dial(site.url, "/ws/cars") for _ in range(8)]
    for raw in raws:
        await raw.send(frame(TEXT, b"busy") + frame(BINARY, bytes(200_000)))
    await eventually(lambda: site.manager.stats["closed_unfinished"] >= 1)
    assert held(site) <= MIB
    for raw in raws:
        raw.close()
    await eventually(lambda: nothing_left(site))


async def test_unfinished_requests_count(serve, dial):
    site = await serve(Echo(), max_inbound=MIB, max_header_size=MIB)
    raws = [await dial(site.url) for _ in range(8)]
    for raw in raws:
        await raw.send(request("/ws/cars")[:-2] + b"X-A: " + b"x" * 200_000)
    assert (await raws[0].response()).status == 503
    assert held(site) <= MIB
    witness = await dial(site.url, "/ws/cars")
    await witness.send(frame(TEXT, b"fine"))
    assert await witness.text() == "fine"
    for raw in raws:
        raw.close()


async def test_a_message_that_is_finished_gives_its_memory_back(serve, dial):
    site = await serve(Echo(), max_inbound=MIB)
    raw = await dial(site.url, "/ws/cars")
    for _ in range(20):
        await raw.send(UNFINISHED + frame(CONTINUATION))
        assert len((await raw.frame()).payload) == 256 << 10
    assert held(site) == 0
    assert site.manager.stats["closed_unfinished"] == 0


async def test_a_server_that_closes_a_connection_drops_its_unfinished_message(serve, dial):
    site = await serve(Echo())
    raw = await dial(site.url, "/ws/cars")
    await raw.send(UNFINISHED)
    await eventually(lambda: held(site) > 0)
    (ws,) = site.manager.connections.values()
    ws.close()
    assert held(site) == 0
