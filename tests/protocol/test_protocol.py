"""RFC 6455 5 to 8, byte by byte: what a server must accept, and how it closes after anything else."""

import pytest

from ..lib.raw import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
)
from ..lib.support import Echo, Recorder

GOOD_TEXTS = [
    "\0",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "Grüße, κόσμε, 🚗",
]


@pytest.fixture
async def site(serve):
    return await serve(Echo(), max_message_size=1000)


@pytest.fixture
async def open_raw(site, dial):
    return await dial(site.url, "/ws/cars")


async def test_good_utf_8_split_at_every_byte_is_one_message(open_raw):
    text = "".join(GOOD_TEXTS)
    data = text.encode()
    await open_raw.send(frame(TEXT, data[:1], fin=False))
    for byte in data[1:-1]:
        await open_raw.send(frame(CONTINUATION, bytes([byte]), fin=False))
    await open_raw.send(frame(CONTINUATION, data[-1:]))
    assert await open_raw.text() == text
    await open_raw.send(b"", pieces=[bytes([byte]) for byte in frame(TEXT, data)])
    assert await open_raw.text() == text


@pytest.mark.parametrize("text", GOOD_TEXTS)
async def test_every_edge_of_utf_8_comes_back_as_it_was(open_raw, text):
    for wrapped in (text, "x" * 61 + text, text + "x" * 61):
        await open_raw.send(frame(TEXT, wrapped.encode()))
        assert await open_raw.text() == wrapped


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 33, 125, 126, 999, 1000])
@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x80\x00\x7f"])
async def test_every_mask_and_length_unmasks(open_raw, size, mask):
    data = bytes(i % 251 for i in range(size))
    await open_raw.send(frame(BINARY, data, mask=mask))
    assert (await open_raw.frame()).payload == data


async def test_fragments_are_one_message_with_control_frames_in_between(serve, dial):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars")
    await raw.send(
        frame(TEXT, b"a", fin=False)
        + frame(PING, b"1")
        + frame(CONTINUATION, b"b", fin=False)
        + frame(PONG, b"unasked")
        + frame(CONTINUATION, b"", fin=False)
        + frame(PING, b"2")
        + frame(CONTINUATION, b"c")
        + frame(BINARY, b"", fin=False)
        + frame(CONTINUATION, b"d")
    )
    for payload in (b"1", b"2"):
        got = await raw.frame()
        assert (got.opcode, got.payload) == (PONG, payload)
    await recorder.until("on_message", 2)
    assert recorder.of("on_message") == [("abc",), (b"d",)]


@pytest.mark.parametrize("size", [0, 1, 124, 125])
async def test_a_ping_is_answered_with_its_payload(open_raw, size):
    payload = bytes(range(size))
    await open_raw.send(frame(PING, payload))
    got = await open_raw.frame()
    assert (got.opcode, got.payload, got.fin, got.masked) == (PONG, payload, True, False)


async def test_an_unasked_pong_is_ignored(open_raw):
    await open_raw.send(frame(PONG, b"x") + frame(PONG) + frame(TEXT, b"hi"))
    assert await open_raw.text() == "hi"


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
async def test_a_legal_close_is_answered_with_its_code(open_raw, code):
    await open_raw.send(close_frame(code, "reason é".encode()))
    assert await open_raw.close_code() == code
    assert await open_raw.eof() == b""


async def test_a_close_with_the_longest_reason_is_legal(open_raw):
    await open_raw.send(close_frame(1000, b"x" * 123))
    assert await open_raw.close_code() == 1000


async def test_exactly_the_limit_is_allowed_also_over_fragments(open_raw):
    await open_raw.send(frame(BINARY, b"x" * 1000))
    assert (await open_raw.frame()).payload == b"x" * 1000
    await open_raw.send(frame(BINARY, b"x" * 999, fin=False) + frame(CONTINUATION, b"x"))
    assert (await open_raw.frame()).payload == b"x" * 1000
    await open_raw.send(frame(BINARY, b"y" * 1000))
    assert (await open_raw.frame()).payload == b"y" * 1000


async def test_half_close_with_the_close_frame_still_gets_every_answer(open_raw):
    await open_raw.send(frame(TEXT, b"hi") + close_frame(4000))
    open_raw.half_close()
    assert await open_raw.text() == "hi"
    assert await open_raw.close_code() == 4000
    assert await open_raw.eof() == b""


async def test_half_close_with_a_violation_still_gets_the_code(open_raw):
    await open_raw.send(frame(TEXT, b"hi", mask=None))
    open_raw.half_close()
    assert await open_raw.close_code() == 1002
