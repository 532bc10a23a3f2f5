"""permessage-deflate (RFC 7692): what is read, what is sent."""

import asyncio
import random
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage
from wsproto.extensions import PerMessageDeflate

from fastws import Listener, Server
from fastws.testing import running

from ..lib.deflate import OFFER, compressing, deflated, deflated_frame, inflated, message_in, upgrade
from ..lib.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, Raw, close_frame, frame
from ..lib.support import Echo, eventually, nothing_left

JSON = b'{"type":"quote","symbol":"ACME","bid":101.25,"ask":101.5,"depth":[' + b"[101.25,300]," * 90 + b"[0,0]]}"
MIB = 1 << 20

# RFC 7692 7.2.3: "Hello", in the forms of the text
HELLO = {
    "one block": bytes.fromhex("f248cdc9c90700"),
    "no compression": bytes.fromhex("000500faff48656c6c6f00"),
    "BFINAL": bytes.fromhex("f348cdc9c9070000"),
    "two blocks": bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")),
    "BFINAL, and nothing else": bytes.fromhex("f348cdc9c90700"),
    "BFINAL in the block that is cut off": bytes.fromhex("000500faff48656c6c6f01"),
    "the end twice": bytes.fromhex("f348cdc9c90700030000"),
}


@pytest.fixture
async def site(serve, wire):
    return await serve(Echo(), compression="shared", compression_threshold=0, max_message_size=MIB)


@pytest.fixture
async def raw(site):
    raw = await compressing(site.url)
    yield raw
    raw.close()
    await eventually(lambda: nothing_left(site))


@pytest.mark.parametrize("name", HELLO)
async def test_the_examples_of_the_rfc_are_read(raw, name):
    await raw.send(frame(TEXT, HELLO[name], rsv=4))
    assert message_in(await raw.frame()) == b"Hello"


async def test_the_example_in_fragments_is_read(raw):
    await raw.send(frame(TEXT, HELLO["one block"][:3], fin=False, rsv=4) + frame(CONTINUATION, HELLO["one block"][3:]))
    assert message_in(await raw.frame()) == b"Hello"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 2, 125, 126, 1000, 65535, 65536, 70_000, 300_000, MIB])
async def test_messages_of_any_size_come_back(raw, opcode, size):
    payload = (JSON * (size // len(JSON) + 1))[:size]
    await raw.send(deflated_frame(payload, opcode))
    got = await raw.frame()
    assert got.opcode == opcode
    assert message_in(got) == payload
    assert (got.rsv == 4) == (size >= 125)
    assert got.rsv == 0 or len(got.payload) < size


async def test_what_cannot_be_compressed_goes_out_plain(raw):
    noise = random.Random(1).randbytes(100_000)
    await raw.send(deflated_frame(noise, BINARY))
    got = await raw.frame()
    assert (got.rsv, got.payload) == (0, noise)


@pytest.mark.parametrize("memory", [1, 9])
async def test_what_grows_by_compression_is_still_within_the_limit(raw, memory):
    noise = random.Random(1).randbytes(MIB)
    assert len(deflated(noise, memory=memory)) > MIB
    await raw.send(deflated_frame(noise, BINARY, memory=memory))
    assert (await raw.frame()).payload == noise


async def test_control_frames_come_between_fragments_and_stay_plain(raw):
    data = deflated(JSON)
    await raw.send(
        frame(TEXT, data[:9], fin=False, rsv=4)
        + frame(PING, b"p" * 125)
        + frame(CONTINUATION, b"", fin=False)
        + frame(PONG)
        + frame(CONTINUATION, data[9:])
    )
    assert await raw.frame() == Frame(PONG, b"p" * 125, True, 0, False)
    assert message_in(await raw.frame()) == JSON


RSV1_MISUSED = {
    "on a continuation": frame(TEXT, deflated(b"x" * 9)[:2], fin=False, rsv=4) + frame(CONTINUATION, b"", rsv=4),
    "on a continuation of plain text": frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", rsv=4),
    "on a ping": frame(PING, deflated(b"x"), rsv=4),
    "on a pong": frame(PONG, rsv=4),
    "on a Close": frame(CLOSE, b"\x03\xe8", rsv=4),
    "with RSV2": frame(TEXT, deflated(b"x"), rsv=6),
    "with RSV3": frame(TEXT, deflated(b"x"), rsv=5),
    "RSV2 alone": frame(TEXT, deflated(b"x"), rsv=2),
    "on a reserved opcode": frame(0x3, deflated(b"x"), rsv=4),
}


@pytest.mark.parametrize("name", RSV1_MISUSED)
async def test_rsv1_has_its_place(raw, name):
    await raw.send(RSV1_MISUSED[name])
    assert await raw.close_code() == 1002


DAMAGED = {
    "nothing": b"",
    "a reserved kind of block": b"\x07",
    "a stored block with a bad length": b"\x00\x05\x00\x00\x00Hello",
    "a distance before the message": bytes.fromhex("4a04620000"),
    "too many codes": b"\xfd\xff\xff",
    "zlib's own header": zlib.compress(JSON),
    "gzip": zlib.compress(JSON, wbits=31),
    "a stream, then dirt": deflated(b"x") + b"\xff\xff",
}


@pytest.mark.parametrize("name", DAMAGED)
async def test_damaged_data_are_1007(raw, name):
    await raw.send(frame(BINARY, DAMAGED[name], rsv=4))
    assert await raw.closing() == (1007, "the compressed data are damaged")
    assert await raw.eof() == b""


@pytest.mark.parametrize("payload", [b"Hello", JSON])
async def test_a_message_cut_short_anywhere_is_1007_or_shorter(site, payload):
    data = deflated(payload)
    for end in range(len(data)):
        raw = await compressing(site.url)
        await raw.send(frame(BINARY, data[:end], rsv=4))
        assert await raw.closing() == (1007, "the compressed data are damaged"), end
        raw.close()


async def test_text_that_is_not_utf_8_is_1007(raw):
    await raw.send(deflated_frame(b"caf\xc3"))
    assert await raw.closing() == (1007, "text is not UTF-8")


def referring(payload: bytes) -> bytes:
    """A message that takes `payload` from what came before it on the connection."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=payload)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < len(payload) // 2
    return data[:-4]


@pytest.mark.parametrize("is_same", [True, False])
async def test_nothing_of_one_message_is_in_the_next(raw, site, is_same):
    """Neither of the same peer's nor of another's: the window begins empty."""
    secret = random.Random(2).randbytes(200)
    await raw.send(deflated_frame(secret, BINARY))
    assert message_in(await raw.frame()) == secret
    spy = raw if is_same else await compressing(site.url)
    await spy.send(frame(BINARY, referring(secret), rsv=4))
    assert await spy.closing() == (1007, "the compressed data are damaged")
    spy.close()


@pytest.mark.parametrize("fragments", [1, 5])
async def test_a_bomb_ends_at_the_limit(raw, fragments):
    data = deflated(bytes(200 * MIB))
    cut = len(data) // fragments + 1
    parts = [data[start : start + cut] for start in range(0, len(data), cut)]
    await raw.send(
        b"".join(
            frame(BINARY if not n else CONTINUATION, part, fin=n == len(parts) - 1, rsv=0 if n else 4)
            for n, part in enumerate(parts)
        )
    )
    assert await raw.closing() == (1009, f"message exceeds {MIB} bytes")


@pytest.mark.parametrize(("size", "code"), [(1000, None), (1001, 1009), (65536, 1009), (70_000, 1009)])
async def test_the_limit_is_exact(serve, size, code):
    site = await serve(Echo(), compression="shared", max_message_size=1000)
    raw = await compressing(site.url)
    await raw.send(deflated_frame(bytes(size), BINARY) + close_frame(1000))
    if code is None:
        assert message_in(await raw.frame()) == bytes(size)
    assert await raw.close_code() == (code or 1000)
    raw.close()


async def test_rates_count_what_was_expanded(serve):
    site = await serve(Echo(), compression="shared", max_byte_rate=100_000, over_rate="close")
    raw = await compressing(site.url)
    await raw.send(deflated_frame(bytes(150_000), BINARY))
    assert await raw.closing() == (1008, "rate limit exceeded")
    raw.close()


async def test_a_peer_that_has_much_expanded_waits_while_others_are_served(raw, site):
    bombs = deflated_frame(bytes(MIB), BINARY) * 30
    other = await compressing(site.url)
    sending = asyncio.create_task(raw.send(bombs))
    answered = 0
    for _ in range(10):
        await other.send(deflated_frame(b"x" * 200))
        assert message_in(await other.frame()) == b"x" * 200
        answered += 1
    for _ in range(30):
        assert message_in(await raw.frame()) == bytes(MIB)
    await sending
    assert answered == 10
    assert site.manager.stats["throttled"] >= 29
    other.close()


async def test_a_connection_with_much_behind_it_holds_nothing(raw, site):
    for payload in (JSON, bytes(MIB)):
        await raw.send(deflated_frame(payload, BINARY))
        await raw.frame()
    await eventually(lambda: site.server._reactor.counters["ranges"] == 0)
    counters = site.server._reactor.counters
    assert (counters["connections"], counters["inbound_bytes"], counters["blocks"]) == (1, 0, 1)


# -- out


class Silent(Listener):
    pass


@pytest.fixture
async def room(serve):
    """A server, and a way to join its channel: `await enter(bits)`, or None for a plain one."""
    joined = []

    async def build(**options):
        site = await serve(Silent(), **{"compression": "shared", **options})

        async def enter(bits):
            if bits is None:
                raw = await Raw.open(site.url)
                await raw.upgrade("/ws/cars")
            else:
                raw = await compressing(site.url, offer=f"{OFFER}; server_max_window_bits={bits}")
            joined.append(raw)
            return raw

        return site, enter

    yield build
    for raw in joined:
        raw.close()


async def test_a_broadcast_is_compressed_once_for_each_window(room):
    site, enter = await room()
    members = [(bits, await enter(bits)) for bits in (None, 9, 12, 15, 9, 12, 15, None)]
    noise = random.Random(3).randbytes(2000).hex().encode()
    for payload in (JSON, noise + b"." * 40_000 + noise, b"x" * 200_000):
        before = site.manager.stats
        assert site.manager.broadcast("cars", payload) == len(members)
        sizes = {}
        for bits, raw in members:
            got = await raw.frame()
            assert got.rsv == (4 if bits else 0)
            assert message_in(got, bits or 15) == payload
            sizes[bits] = len(got.payload)
        after = site.manager.stats
        assert after["compressed"] - before["compressed"] == 3
        assert after["compressed_before_bytes"] - before["compressed_before_bytes"] == 3 * len(payload)
        assert after["compressed_after_bytes"] - before["compressed_after_bytes"] == sizes[9] + sizes[12] + sizes[15]


async def test_the_threshold_and_whoever_calls_decide(room):
    site, enter = await room(compression_threshold=100)
    raw, plain = await enter(15), await enter(None)
    ws = next(ws for ws in site.manager.connections.values() if ws.compression)
    assert sum(ws.compression for ws in site.manager.connections.values()) == 1

    async def is_compressed(send, size, **how):
        send("x" * size, **how)
        got = await raw.frame()
        assert message_in(got) == b"x" * size
        return got.rsv == 4

    calls = [
        lambda message, **how: site.manager.broadcast("cars", message, **how),
        lambda message, **how: site.manager.broadcast("cars", message, to=ws, **how),
        lambda message, **how: site.manager.send(ws, message, **how),
        ws.send,
        lambda message, **how: site.manager.send_threadsafe(ws, message, **how),
        lambda message, **how: site.manager.broadcast_threadsafe("cars", message, **how),
        lambda message, **how: site.manager._broadcast_to_ready("cars", message, 1 << 20, **how),
    ]
    for send in calls:
        assert not await is_compressed(send, 99)
        assert await is_compressed(send, 100)
        assert await is_compressed(send, 99, compress=True)
        assert not await is_compressed(send, 5000, compress=False)
        assert not await is_compressed(send, 1, compress=True)
    assert (await plain.frame()).rsv == 0


async def test_with_compression_off_nobody_can_force_it(serve):
    site = await serve(Silent())
    raw = await Raw.open(site.url)
    await raw.send(upgrade("/ws/cars"))
    await raw.response()
    site.manager.broadcast("cars", "x" * 5000, compress=True)
    assert await raw.text() == "x" * 5000
    assert site.manager.stats["compressed"] == 0
    raw.close()


async def test_a_user_is_sent_compressed_messages(serve):
    class Named(Listener):
        def on_handshake(self, request):
            request.user = "ann"

    site = await serve(Named(), compression="shared")
    raw = await compressing(site.url)
    for compress, rsv in ((None, 4), (False, 0), (True, 4)):
        assert site.manager.send_to_user("ann", JSON, compress=compress) == 1
        got = await raw.frame()
        assert (got.rsv, message_in(got)) == (rsv, JSON)
    raw.close()


async def test_prepared_messages_go_out_plain(room):
    site, enter = await room()
    raw = await enter(15)
    (ws,) = site.manager.connections.values()
    assert ws._send_run(site.manager._prepare([JSON, "second" * 500])) == 2
    assert [(await raw.frame()).rsv for _ in range(2)] == [0, 0]
    site.manager.broadcast("cars", JSON)
    assert message_in(await raw.frame()) == JSON


async def test_many_broadcasts_in_one_tick_keep_their_order_for_all(room):
    site, enter = await room(compression_threshold=500)
    members = [(bits, await enter(bits)) for bits in (15, None, 9)]
    sent = [(JSON[: 50 + 37 * n] + b"%d" % n) for n in range(60)]
    for payload in sent:
        site.manager.broadcast("cars", payload)
    for bits, raw in members:
        assert [message_in(await raw.frame(), bits or 15) for _ in sent] == sent


async def test_the_oldest_compressed_messages_are_dropped_whole(room):
    site, enter = await room(overflow="drop_oldest", max_backlog=20_000)
    raw = await enter(15)
    source = random.Random(4)
    sent = [b"%d:" % n + source.randbytes(600).hex().encode() for n in range(20_000)]
    for number, payload in enumerate(sent):
        site.manager.broadcast("cars", payload)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert site.manager.stats["dropped_oldest"] > 0
    got = []
    while not got or got[-1] != sent[-1]:
        got.append(message_in(await raw.frame()))
    places = [int(payload.partition(b":")[0]) for payload in got]
    assert places == sorted(places)
    assert [sent[place] for place in places] == got


# -- an oracle

parts = st.one_of(st.binary(max_size=300), st.integers(0, 3000).map(lambda n: b"ab" * n), st.just(JSON))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    messages=st.lists(st.tuples(st.booleans(), parts, st.integers(0, 4), st.booleans()), max_size=5),
    bits=st.integers(9, 15),
    cuts=st.lists(st.integers(0, 1 << 16), max_size=6),
)
async def test_wsproto_and_fastws_understand_each_other(serve, messages, bits, cuts):
    server = Server(port=0, compression="shared", compression_threshold=20)
    server.endpoint("/", Echo())
    extension = PerMessageDeflate(server_max_window_bits=bits)
    async with running(server) as url:
        raw = await Raw.open(url)
        offered = extension.offer()
        await raw.send(upgrade("/", f"{OFFER}; {offered}"))
        extension.finalize((await raw.response())["Sec-WebSocket-Extensions"])
        client = Connection(ConnectionType.CLIENT, [extension])
        data, expected = b"", []
        for is_text, part, count, _ in messages:
            whole = part.hex() if is_text else part
            kind = TextMessage if is_text else BytesMessage
            for piece in range(count):
                data += client.send(kind(whole[: piece and 0], message_finished=False))
            data += client.send(kind(whole, message_finished=True))
            expected.append(whole)
        places = sorted({cut % (len(data) + 1) for cut in cuts})
        await raw.send(b"", pieces=[data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)])
        await raw.send(close_frame(1000))
        client.receive_data(await raw.eof())
        received, whole = [], []
        for event in client.events():
            if isinstance(event, TextMessage | BytesMessage):
                whole.append(event.data)
                if event.message_finished:
                    received.append(type(event.data)().join(whole))
                    whole = []
        assert received == expected
        raw.close()


def test_inflating_is_the_inverse_of_deflating():
    """The helpers themselves."""
    assert inflated(deflated(JSON, bits=9), 9) == JSON
