"""RFC 6455 5 to 8, byte by byte: what a server must take, and how it fails what it must not."""

import random
import struct
from contextlib import suppress

import pytest

from .raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    request,
)
from .support import Echo, Recorder

# Violations: name -> (bytes, close code).
BAD_FRAMES = {
    "text without a mask": (frame(TEXT, b"x", mask=None), 1002),
    "binary without a mask": (frame(BINARY, b"x" * 70000, mask=None), 1002),
    "empty text without a mask": (frame(TEXT, b"", mask=None), 1002),
    "ping without a mask": (frame(PING, b"x", mask=None), 1002),
    "close without a mask": (frame(CLOSE, b"\x03\xe8", mask=None), 1002),
    **{f"text with rsv {rsv:03b}": (frame(TEXT, b"x", rsv=rsv), 1002) for rsv in range(1, 8)},
    **{f"ping with rsv {rsv:03b}": (frame(PING, b"x", rsv=rsv), 1002) for rsv in (1, 2, 4)},
    "close with a reserved bit": (frame(CLOSE, b"\x03\xe8", rsv=4), 1002),
    "continuation with a reserved bit": (
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", rsv=4),
        1002,
    ),
    **{
        f"opcode {opcode:#x}": (frame(opcode, b"x"), 1002)
        for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
    },
    "a ping in two fragments": (frame(PING, b"x", fin=False), 1002),
    "a pong in two fragments": (frame(PONG, b"x", fin=False), 1002),
    "a close in two fragments": (frame(CLOSE, b"\x03\xe8", fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a pong of 126 bytes": (frame(PONG, b"x" * 126), 1002),
    "a close of 126 bytes": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "a ping that announces 2^40 bytes": (frame(PING, announced=1 << 40), 1002),
    "a ping of 5 bytes with a 16-bit length": (frame(PING, b"hello", length_bits=16), 1002),
    "125 bytes with a 16-bit length": (frame(TEXT, b"x" * 125, length_bits=16), 1002),
    "0 bytes with a 16-bit length": (frame(TEXT, b"", length_bits=16), 1002),
    "125 bytes with a 64-bit length": (frame(TEXT, b"x" * 125, length_bits=64), 1002),
    "65535 bytes with a 64-bit length": (frame(TEXT, b"x" * 65535, length_bits=64), 1002),
    "2^63 bytes": (frame(TEXT, announced=1 << 63), 1002),
    "2^64 - 1 bytes": (frame(BINARY, announced=(1 << 64) - 1), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "a continuation after the end": (frame(TEXT, b"x") + frame(CONTINUATION, b"x"), 1002),
    "a text inside a text": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
    "a binary inside a text": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"x"), 1002),
    "2^63 - 1 bytes": (frame(TEXT, announced=(1 << 63) - 1), 1009),
    "a message over the limit": (frame(TEXT, b"x" * 1001), 1009),
    "an announcement over the limit": (frame(BINARY, announced=1001), 1009),
    "fragments over the limit": (
        frame(BINARY, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401),
        1009,
    ),
    "many small fragments over the limit": (
        frame(BINARY, b"x" * 10, fin=False) + frame(CONTINUATION, b"x" * 10, fin=False) * 100,
        1009,
    ),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"a close with code {code}": (close_frame(code), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a close with a reason that is no UTF-8": (close_frame(1000, b"\xff"), 1007),
    "a close with half a character": (close_frame(1000, "é".encode()[:1]), 1007),
}

BAD_TEXTS = {
    "a lone continuation byte": b"\x80",
    "a lone lead byte": b"\xc3",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xc0\x80",
    "an overlong euro sign": b"\xf0\x82\x82\xac",
    "an overlong in three bytes": b"\xe0\x80\xaf",
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "a surrogate pair": b"\xed\xa0\xbd\xed\xb2\xa9",
    "past the last code point": b"\xf4\x90\x80\x80",
    "a five-byte form": b"\xf8\x88\x80\x80\x80",
    "0xfe": b"\xfe",
    "0xff": b"\xff",
    "cut short after two of three": b"\xe2\x82",
    "cut short after three of four": b"\xf0\x9f\x9a",
    "cut short by another character": b"\xe2\x82x",
}

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


async def failed(raw, code):
    """The server fails the connection with `code` and hangs up without waiting for an answer."""
    got = await raw.frame()
    if got.opcode == TEXT:  # the echo of what was whole before
        got = await raw.frame()
    assert (got.opcode, got.payload[:2]) == (CLOSE, struct.pack("!H", code))
    assert await raw.eof() == b""


@pytest.fixture
async def witness(site, join):
    """Afterwards, another connection still works."""
    client = await join(f"{site.url}/ws/cars")
    yield
    await client.send("fine")
    assert await client.received() == ["fine"]


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_violation_fails_the_connection(open_raw, name):
    data, code = BAD_FRAMES[name]
    await open_raw.send(data)
    await failed(open_raw, code)


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_violation_byte_by_byte_or_in_the_handshakes_packet_is_the_same(site, dial, name):
    data, code = BAD_FRAMES[name]
    raw = await dial(site.url, "/ws/cars")
    head = [data[i : i + 1] for i in range(min(len(data), 20))]
    with suppress(ConnectionError):  # it may have hung up before the last byte
        await raw.send(b"", pieces=[*head, data[20:]])
    await failed(raw, code)
    raw = await dial(site.url)
    await raw.send(request("/ws/cars") + data)
    await raw.response()
    await failed(raw, code)


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_what_came_before_a_violation_is_answered_and_what_comes_after_is_not(open_raw, name):
    data, code = BAD_FRAMES[name]
    await open_raw.send(frame(TEXT, b"before") + frame(PING, b"p") + data + frame(TEXT, b"after"))
    assert await open_raw.text() == "before"
    assert (await open_raw.frame()).payload == b"p"
    await failed(open_raw, code)


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("name", BAD_TEXTS)
async def test_text_that_is_no_utf_8_is_1007(site, dial, name):
    bad = BAD_TEXTS[name]
    for data in (bad, b"x" * 200 + bad, bad + b"x" * 200, "é🚗".encode() + bad):
        raw = await dial(site.url, "/ws/cars")
        await raw.send(frame(TEXT, data))
        await failed(raw, 1007)


@pytest.mark.parametrize("name", BAD_TEXTS)
async def test_bad_utf_8_split_over_fragments_is_1007(site, dial, name):
    data = b"ok " + BAD_TEXTS[name] + b"x"
    for cut in range(1, len(data)):
        raw = await dial(site.url, "/ws/cars")
        parts = frame(TEXT, data[:cut], fin=False) + frame(CONTINUATION, data[cut:])
        await raw.send(parts)
        await failed(raw, 1007)


@pytest.mark.parametrize("name", [n for n in BAD_TEXTS if "lone lead" not in n and "after" not in n])
async def test_bad_utf_8_fails_before_the_message_ends(site, dial, name):
    data = b"ok " + BAD_TEXTS[name]
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, data, fin=False))
    await failed(raw, 1007)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, data, announced=900))
    await failed(raw, 1007)


async def test_binary_may_be_no_utf_8(open_raw):
    data = b"".join(BAD_TEXTS.values())
    await open_raw.send(frame(BINARY, data))
    assert (await open_raw.frame()).payload == data


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


async def test_a_message_of_many_fragments_is_whole(serve, dial):
    site = await serve(Echo())
    raw = await dial(site.url, "/ws/cars")
    count = 20_000
    parts = [frame(CONTINUATION, b"x", fin=False)] * (count - 2)
    data = frame(BINARY, b"x", fin=False) + b"".join(parts) + frame(CONTINUATION, b"x")
    await raw.send(data)
    assert (await raw.frame()).payload == b"x" * count


async def test_a_close_between_fragments_ends_it(open_raw):
    await open_raw.send(frame(TEXT, b"a", fin=False) + close_frame(1001))
    assert await open_raw.close_code() == 1001
    assert await open_raw.eof() == b""


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


async def test_the_limit_counts_bytes_not_characters(open_raw):
    await open_raw.send(frame(TEXT, ("é" * 501).encode()))
    await failed(open_raw, 1009)


async def test_an_announced_length_costs_no_memory_before_the_bytes_come(serve, dial):
    site = await serve(max_message_size=1 << 30)
    raws = [await dial(site.url, "/ws/cars") for _ in range(20)]
    for raw in raws:
        await raw.send(frame(BINARY, b"x", announced=1 << 29))
    other = await dial(site.url, "/ws/cars")
    await other.send(frame(PING, b"alive"))
    assert (await other.frame()).payload == b"alive"
    assert len(site.manager.connections) == 21


async def test_half_close_after_a_message_still_gets_the_answer(open_raw):
    await open_raw.send(frame(TEXT, b"hi"))
    open_raw.half_close()
    assert await open_raw.text() == "hi"


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


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("seed", range(30))
async def test_a_hundred_bytes_of_anything_harm_nobody(site, dial, seed):

    source = random.Random(seed)
    raw = await dial(site.url, "/ws/cars")
    await raw.send(source.randbytes(100))
    raw.half_close()
    await raw.eof()
    raw = await dial(site.url)
    await raw.send(source.randbytes(100) + b"\r\n\r\n")
    raw.half_close()
    await raw.eof()
