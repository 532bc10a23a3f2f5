"""Floods: their cost is bounded, and afterwards nothing is left of them."""

import asyncio
import contextlib
import os
import ssl
from pathlib import Path

import pytest

from ..lib.raw import BINARY, CONTINUATION, PING, PONG, Raw, frame, send_and_reset
from ..lib.support import Echo, eventually, needs_proc, nothing_left, resident
from . import MAX_HEADER_SIZE
from .floods import ENDLESS, FRAGMENTS, LENGTHY, RESETS
from .frames import says
from .strangers import MIB, stranger

BOUND = 16 * MIB  # of memory in a larger flood; the sanitizers retain some freed memory


@needs_proc
@pytest.mark.parametrize("name", ENDLESS)
async def test_a_flood_costs_bounded_memory(site, name):
    first, repeated = ENDLESS[name]
    flood = repeated * 10_000
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(first)
        before = resident()
        for _ in range(40):
            await raw.send(flood + frame(PING, b"so far"))
            await raw.until(says(PONG, b"so far"))
        assert resident() - before < BOUND


@pytest.mark.parametrize("name", FRAGMENTS)
async def test_a_message_may_not_have_fragments_without_end(site, name):
    first, repeated = FRAGMENTS[name]
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(first + repeated * 1023 + frame(PING, b"so far"))
        await raw.until(says(PONG, b"so far"))
        await raw.send(repeated)
        assert await raw.closing() == (1009, "message has more than 1024 fragments")


@needs_proc
async def test_pings_to_a_peer_that_does_not_read_cost_bounded_memory(site):
    """RFC 6455 5.5.3: of several pings only the last has to be answered."""
    pings = MIB // 8 // 131
    raw = await Raw.open(site.url, receive_buffer=4096)
    with contextlib.closing(raw):
        await raw.upgrade("/ws/cars")
        before = resident()
        for _ in range(400):
            await raw.send(frame(PING, b"x" * 125) * pings)
        assert resident() - before < BOUND
        await raw.send(frame(PING, b"the last"))
        answered = await raw.until(says(PONG, b"the last"))
        assert answered.count(says(PONG, b"x" * 125)) < 200 * pings


def address_space():
    """Bytes of memory that this process has asked for, whether it has used them or not."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096


@needs_proc
async def test_an_announcement_costs_nothing(serve):
    """CVE-2022-35922: rust-websocket allocated the length that a header announces before a byte of it came."""
    site = await serve(max_message_size=1 << 40)
    async with contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(stranger(site, "/ws/cars")) for _ in range(20)]
        before = address_space()
        for raw in raws:
            await raw.send(frame(BINARY, b"x", announced=1 << 30))
        await raws[0].send(b"", pieces=[b"x"] * 100)
        async with stranger(site, "/ws/cars") as other:
            await other.send(frame(PING, b"alive"))
            assert (await other.frame()).payload == b"alive"
        assert address_space() - before < 64 * MIB
    await eventually(lambda: nothing_left(site))


@needs_proc
@pytest.mark.parametrize("payload", [b"x", b""], ids=["of one byte", "empty"])
async def test_a_fragment_costs_its_bytes_and_no_more(serve, payload):
    """CVE-2026-62389 (ws), CVE-2026-12151 (undici): an object for every fragment of a message that never ends."""
    site = await serve(Echo())
    fragments = MIB // 64 - 1  # and the last one
    async with contextlib.AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(stranger(site, "/ws/cars")) for _ in range(64)]
        before = resident()
        for raw in raws:
            await raw.send(
                frame(BINARY, payload, fin=False) + frame(CONTINUATION, payload, fin=False) * (fragments - 1)
            )
            await raw.send(frame(PING, b"so far"))
            assert (await raw.frame()).payload == b"so far"
        assert resident() - before < 64 * fragments * len(payload) * 2 + BOUND
        for raw in raws:
            await raw.send(frame(CONTINUATION))
            assert (await raw.frame()).payload == payload * fragments
    await eventually(lambda: nothing_left(site))


@needs_proc
async def test_a_payload_by_drops_costs_its_bytes_and_no_more(serve):
    """CVE-2026-123817: aiohttp kept an object for every read of a frame that is not complete."""
    site = await serve(Echo())
    async with stranger(site, "/ws/cars") as raw:
        before = resident()
        await raw.send(frame(BINARY, announced=20_000), pieces=[b"x"] * 19_999)
        assert resident() - before < 8 * MIB  # the sanitizers retain some
        await raw.send(b"x")
        assert len((await raw.frame()).payload) == 20_000
    await eventually(lambda: nothing_left(site))


async def test_a_head_by_drops_is_refused_with_the_first_byte_that_is_too_many(site):
    """CVE-2023-43669: tungstenite put no bound on a handshake's head, and read it anew with every piece."""
    data = b"GET /ws/cars HTTP/1.1\r\n" + b"X-A: x\r\n" * MAX_HEADER_SIZE
    data = data[:MAX_HEADER_SIZE]
    async with stranger(site) as raw:
        await raw.send(b"", pieces=[data[i : i + 8] for i in range(0, len(data), 8)])
        answered = asyncio.create_task(raw.response())
        async with stranger(site, "/ws/cars") as other:
            await other.send(frame(PING, b"read by now"))
            assert (await other.frame()).payload == b"read by now"
        assert not answered.done()
        await raw.send(b"X")
        assert (await answered).status == 431


class Reader(Echo):
    """Reads all attributes of a request."""

    def on_handshake(self, request):
        request.data["read"] = (
            request.path,
            request.path_parameters,
            request.query,
            dict(request.headers),
            request.cookies,
            request.subprotocols,
        )


@pytest.mark.parametrize("name", LENGTHY)
async def test_a_long_field_takes_no_time_to_speak_of(serve, name):
    """CVE-2021-32640: ws split Sec-WebSocket-Protocol in quadratic time; so did parsers of other fields."""
    data, status = LENGTHY[name]
    site = await serve(Reader(), max_header_size=MIB)
    async with stranger(site) as raw:
        await raw.send(data)
        assert (await raw.response()).status == status
    await eventually(lambda: nothing_left(site))


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def reset_all(site, data):
    """Many connections that send the bytes and reset, before or after the server has read them."""
    for turns in (0, 3):
        await send_and_reset(site.url, data, times=50, turns=turns)


@needs_proc
@pytest.mark.parametrize("name", RESETS)
async def test_resets_leave_no_descriptor_behind(site, name):
    before = descriptors()
    await reset_all(site, RESETS[name])
    await eventually(lambda: descriptors() == before)


def client_hello():
    """The first bytes of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@needs_proc
@pytest.mark.parametrize("part", [0, 0.5, 1])
async def test_resets_within_a_tls_handshake_leave_no_descriptor_behind(serve, server_side, part):
    site = await serve(Echo(), ssl=server_side)
    hello = client_hello()
    before = descriptors()
    await reset_all(site, hello[: int(len(hello) * part)])
    await eventually(lambda: descriptors() == before and nothing_left(site))
