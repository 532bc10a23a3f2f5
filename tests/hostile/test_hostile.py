"""Whatever strangers send: the answer that the corpus asks for, and nobody else harmed (tests/hostile/)."""

import asyncio
import contextlib
import itertools
import logging
import os
import random
import ssl
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..lib.raw import (
    BINARY,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Raw,
    accept_of,
    close_frame,
    frame,
    request,
    send_and_reset,
)
from ..lib.support import Echo, Recorder, eventually, needs_proc, nothing_left, resident
from . import FORGED, MAX_HEADER_SIZE, MAX_MESSAGE_SIZE, PATH
from .floods import ENDLESS, FRAGMENTS, LENGTHY, RESETS
from .frames import CUT_SHORT, FRAMES, NO_TEXTS, NOT_UTF8, says
from .handshakes import ACCEPTED, NO_WEBSOCKET, NOTHING_HERE, REFUSED, STALLED

MIB = 1 << 20
BOUND = 16 * MIB  # of memory in a flood of more; the sanitizers keep some back of what was freed
PLAIN_FIELDS = ["Content-Type", "Content-Length", "Connection"]
MORE_FIELDS = {405: ["Allow"], 426: ["Sec-WebSocket-Version", "Upgrade"]}


@pytest.fixture
async def site(serve, wire):
    limits = {"max_message_size": MAX_MESSAGE_SIZE, "max_header_size": MAX_HEADER_SIZE}
    return await serve(Echo(), PATH, ping_interval=0, **limits)


@pytest.fixture
async def unharmed(site):
    """Afterwards another connection still works, and when that has gone as well, the engine holds nothing."""
    witness = await Raw.open(site.url)
    await witness.upgrade("/ws/witness")
    yield
    await witness.send(frame(TEXT, b"fine"))
    assert await witness.text() == "fine"
    witness.close()
    await eventually(lambda: nothing_left(site))


pytestmark = pytest.mark.usefixtures("unharmed")


@contextlib.asynccontextmanager
async def stranger(site, target=None):
    """A raw socket, closed at the end; `target` shakes hands for that path at once."""
    raw = await Raw.open(site.url)
    with contextlib.closing(raw):
        if target is not None:
            await raw.upgrade(target)
        yield raw


def splits(data):
    """Ways to send the bytes: at once, one by one (the first 300), and cut at random."""
    yield [data]
    yield [*(data[i : i + 1] for i in range(min(len(data), 300))), data[300:]]
    source = random.Random(data)
    for _ in range(2):
        cuts = [0, *sorted(source.choices(range(len(data) + 1), k=4)), len(data)]
        yield [data[start:end] for start, end in itertools.pairwise(cuts)]


# -- handshakes


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_handshake_is_refused_with_a_status_and_a_reason(site, name, caplog):
    caplog.set_level(logging.INFO, logger="fastws")
    data, status, message = REFUSED[name]
    for pieces in splits(data):
        caplog.clear()
        async with stranger(site) as raw:
            await raw.send(b"", pieces=pieces)
            response = await raw.response()
            assert (response.status, response.error["code"], response.error["message"]) == (status, status, message)
            fields = [field for field, _ in response.fields]
            more = MORE_FIELDS.get(status, [])
            assert fields == [*PLAIN_FIELDS, *more] or (fields[3:], status) == (["Sec-WebSocket-Version"], 400)
            assert response["Sec-WebSocket-Version"] in (None, "13")
            assert "close" in response["Connection"].lower().split(", ")
            assert await raw.eof() == b""
        (record,) = caplog.records
        assert response.error["request_id"] in record.getMessage()


@pytest.mark.usefixtures("wire")
async def test_no_listener_hears_of_a_refused_handshake_and_a_peer_that_sends_no_more_is_answered(serve):
    site = await serve(recorder := Recorder(), PATH, max_header_size=MAX_HEADER_SIZE)
    for name, (data, status, _) in REFUSED.items():
        async with stranger(site) as raw:
            await raw.send(data)
            raw.half_close()
            assert (await raw.response()).status == status, name
    assert recorder.calls == []


async def test_no_http_application_hears_of_what_was_refused(serve):
    """Nothing is smuggled past one parser to the other."""
    heard = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        else:
            heard.append((scope["method"], scope["path"]))
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

    site = await serve(recorder := Recorder(), PATH, max_header_size=MAX_HEADER_SIZE, http=app)
    for name, (data, status, message) in REFUSED.items():
        if message in (NO_WEBSOCKET, NOTHING_HERE):
            continue  # plain requests, and in order
        async with stranger(site) as raw:
            await raw.send(data)
            assert (await raw.response()).status == status, name
            assert await raw.eof() == b"", name
    assert (heard, recorder.calls) == ([], [])
    async with stranger(site) as raw:
        await raw.send(request("/ws/cars", without=["Upgrade"]))
        assert (await raw.response()).status == 204
    assert heard == [("GET", "/ws/cars")]


async def plain(scope, receive, send):
    """An application that answers everything with 204."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})


# After a plain request blank lines and a second blank are read past (RFC 9112 2.2, 3), and not counted.
READ_PAST = {"nothing but line ends", "a blank line first", "two blanks before the target", "one byte too many"}


@pytest.mark.usefixtures("wire")
async def test_what_is_refused_is_refused_after_a_plain_request_too(serve):
    """There uvicorn's parser comes first, which says less of what is wrong."""
    site = await serve(recorder := Recorder(), PATH, max_header_size=MAX_HEADER_SIZE, http=plain)
    for name, (data, status, message) in REFUSED.items():
        if message in (NO_WEBSOCKET, NOTHING_HERE) or name in READ_PAST:
            continue  # the former are plain requests, and in order
        async with stranger(site) as raw:
            await raw.send(request("/", without=["Upgrade"]))
            assert (await raw.response()).status == 204
            await raw.send(data)
            assert (await raw.response()).status in (status, 400), name
            assert await raw.eof() == b"", name
    assert recorder.calls == []
    await eventually(lambda: nothing_left(site))


@pytest.mark.parametrize("name", ACCEPTED)
async def test_an_odd_handshake_that_is_lawful_is_accepted(site, name):
    data, channel = ACCEPTED[name]
    for pieces in splits(data):
        async with stranger(site) as raw:
            await raw.send(b"", pieces=[*pieces, frame(TEXT, b"hi")])
            response = await raw.response()
            assert response.status == 101
            assert response.fields == [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", accept_of(KEY)),
            ]
            assert await raw.text() == "hi"
            assert set(site.manager.channels) == {"witness", channel}
        await eventually(lambda: set(site.manager.channels) == {"witness"})


@pytest.mark.parametrize("name", STALLED)
async def test_a_handshake_that_ends_early_is_hung_up_on(site, name):
    async with stranger(site) as raw:
        await raw.send(STALLED[name])
        raw.half_close()
        assert await raw.eof() == b""


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("name", STALLED)
async def test_a_stalled_handshake_ends_with_408(serve, name):
    site = await serve(handshake_timeout=0.1)
    async with stranger(site) as raw:
        await raw.send(STALLED[name])
        assert (await raw.response()).status == 408
        assert await raw.eof() == b""
    await eventually(lambda: nothing_left(site))


@pytest.mark.usefixtures("wire")
async def test_a_handshake_that_comes_by_drops_has_no_more_time_than_any_other(serve):
    site = await serve(handshake_timeout=0.2)
    async with stranger(site) as raw:
        await raw.send(b"GET /ws/cars HTTP/1.1\r\nX-A: ")
        answered = asyncio.create_task(raw.response())
        while not answered.done():
            await raw.send(b"x")
            await asyncio.sleep(0.01)
        assert (await answered).status == 408


@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03\x01\x00\xf4\x01\x00", request("/ws/cars"), b"\0" * 1000])
async def test_a_stalled_or_foreign_tls_handshake_is_hung_up_on(serve, server_side, data):
    site = await serve(Echo(), ssl=server_side, handshake_timeout=0.2)
    async with stranger(site) as raw:
        await raw.send(data)
        assert not (await raw.eof()).startswith(b"HTTP")
    await eventually(lambda: nothing_left(site))


damages = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(damages=damages, cut=st.integers(0, 400))
async def test_a_damaged_handshake_is_accepted_or_refused_and_nothing_else(site, damages, cut):
    data = request("/ws/cars", extra=[("Origin", "http://example.org"), ("Cookie", "a=1; b=2")])
    for place, dropped, added in damages:
        place %= len(data)
        data = data[:place] + added + data[place + dropped :]
    async with stranger(site) as raw:
        await raw.send(data[:cut], pieces=[data[cut:], frame(TEXT, b"hi") + close_frame()])
        raw.half_close()
        answer = await raw.eof()
    if answer.startswith(b"HTTP/1.1 101 "):
        # What the damage left behind may be the start of a frame, so the echo need not be there.
        assert b"Sec-WebSocket-Accept: " in answer
    else:
        assert answer == b"" or (answer.startswith(b"HTTP/1.1 4") and b'{"error":{' in answer)


async def test_the_same_key_twice_is_two_connections(site):
    async with stranger(site, "/ws/cars") as one, stranger(site, "/ws/cars") as other:
        await one.send(frame(TEXT, KEY.encode()))
        await other.send(frame(TEXT, b"other"))
        assert (await one.text(), await other.text()) == (KEY, "other")


# -- frames


@pytest.mark.parametrize("name", FRAMES)
async def test_hostile_frames_have_their_answer_however_they_come(site, name):
    data, answer = FRAMES[name]
    for pieces in splits(data):
        async with stranger(site, "/ws/cars") as raw:
            await raw.send(b"", pieces=pieces)
            assert await raw.eof() == answer
    async with stranger(site) as raw:  # in the handshake's packet, behind good frames and before others
        await raw.send(request("/ws/cars") + frame(TEXT, b"before") + frame(PING, b"p") + data + frame(TEXT, b"after"))
        assert (await raw.response()).status == 101
        assert await raw.eof() == says(TEXT, b"before") + says(PONG, b"p") + answer


@pytest.mark.parametrize("name", CUT_SHORT)
async def test_a_peer_that_sends_no_more_still_gets_its_answer(site, name):
    data, answer = CUT_SHORT[name]
    for pieces in splits(data):
        async with stranger(site, "/ws/cars") as raw:
            await raw.send(b"", pieces=pieces)
            raw.half_close()
            assert await raw.eof() == answer


@pytest.mark.parametrize("name", NO_TEXTS)
async def test_text_that_is_no_utf_8_is_1007_wherever_it_stands(site, name):
    bad, _ = NO_TEXTS[name]
    texts = [b"x" * before + bad + b"x" * behind for before in range(18) for behind in (0, 1, 9)]
    for text in [*texts, "é🚗".encode() + bad, b"x" * 500 + bad]:
        async with stranger(site, "/ws/cars") as raw:
            await raw.send(frame(TEXT, text))
            assert await raw.eof() == NOT_UTF8


@pytest.mark.parametrize("name", NO_TEXTS)
async def test_text_that_is_no_utf_8_is_1007_however_it_is_split(site, name):
    bad, shows_early = NO_TEXTS[name]
    text = b"ok " + bad
    frames = [
        frame(TEXT, text),
        b"".join([frame(TEXT, fin=False), *(frame(0, bytes([b]), fin=False) for b in text), frame(0)]),
    ]
    for cut in range(len(text) + 1):
        frames.append(frame(TEXT, text[:cut], fin=False) + frame(PONG) + frame(CONTINUATION, text[cut:]))
    if shows_early:
        frames += [frame(TEXT, text, fin=False), frame(TEXT, text, announced=MAX_MESSAGE_SIZE)]
    for data in frames:
        for pieces in splits(data):
            async with stranger(site, "/ws/cars") as raw:
                await raw.send(b"", pieces=pieces)
                assert await raw.eof() == NOT_UTF8


async def test_a_close_reason_writes_no_line_of_its_own_into_the_log(site, caplog):
    caplog.set_level(logging.DEBUG, logger="fastws")
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(close_frame(1000, f"bye{FORGED}".encode()))
        await raw.eof()
    messages = [record.getMessage() for record in caplog.records]
    assert any("closed: 1000 'bye" in message for message in messages)
    assert [message for message in messages if not message.isprintable()] == []


async def test_binary_may_be_no_utf_8(site):
    data = b"".join(bad for bad, _ in NO_TEXTS.values())
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(frame(BINARY, data))
        assert (await raw.frame()).payload == data


@pytest.mark.parametrize("seed", range(30))
async def test_a_hundred_bytes_of_anything_harm_nobody(site, seed):
    source = random.Random(seed)
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(source.randbytes(100))
        raw.half_close()
        await raw.eof()
    async with stranger(site) as raw:
        await raw.send(source.randbytes(100) + b"\r\n\r\n")
        raw.half_close()
        await raw.eof()


# -- floods


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
        assert await raw.closing() == (1009, "message has over 1024 fragments")


@needs_proc
async def test_pings_to_a_peer_that_does_not_read_cost_bounded_memory(site):
    """RFC 6455 5.5.3: of several pings the last may be answered alone."""
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
        assert resident() - before < 8 * MIB  # the sanitizers keep some back
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
    """Reads all that there is to a request."""

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
    """CVE-2021-32640: ws split Sec-WebSocket-Protocol in quadratic time; other fields' readers have, too."""
    data, status = LENGTHY[name]
    site = await serve(Reader(), max_header_size=MIB)
    async with stranger(site) as raw:
        await raw.send(data)
        assert (await raw.response()).status == status
    await eventually(lambda: nothing_left(site))


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def reset_all(site, data):
    """Many connections that send the bytes and go with a TCP reset, before or after the server has read them."""
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
