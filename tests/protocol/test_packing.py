"""A request's head is kept packed while its connection is open, and reads the same."""

import gc
import os
import random
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastws import Listener
from fastws._core import pack_head, unpack_head

from ..lib.raw import KEY
from ..lib.support import eventually

CHROME = (
    b"GET /ws/cars HTTP/1.1\r\nHost: chat.example.com\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 "
    b"(KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: https://chat.example.com\r\n"
    b"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: nl-NL,nl;q=0.9,en-US;q=0.8,en;q=0.7\r\n"
    b"Cookie: sid=4a58b791df6af1d8303e61cdc4bb86c3; remember=iesvHnvV1H5Eb87Co9gRc2EQ5XbgzM6m\r\n"
    b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
FIREFOX = (
    b"GET /ws/cars HTTP/1.1\r\nHost: chat.example.com\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0\r\nAccept: */*\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nSec-WebSocket-Version: 13\r\n"
    b"Origin: https://chat.example.com\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nConnection: keep-alive, Upgrade\r\n"
    b"Cookie: sid=4a58b791df6af1d8303e61cdc4bb86c3\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: websocket\r\n"
    b"Sec-Fetch-Site: same-origin\r\nPragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\n\r\n"
)
SAFARI = (
    b"GET /ws/cars HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nHost: chat.example.com\r\n"
    b"Origin: https://chat.example.com\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
    b"User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    b"Version/17.6 Mobile/15E148 Safari/604.1\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Accept-Language: fr-FR,fr;q=0.9\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
    b"Cookie: sid=4a58b791df6af1d8303e61cdc4bb86c3\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
BARE = (
    b"GET /ws/cars HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HEADS = {"Chrome": CHROME, "Firefox": FIREFOX, "Safari": SAFARI, "bare": BARE}
FACTS = (
    "path",
    "path_parameters",
    "_raw_path",
    "query_string",
    "query",
    "cookies",
    "subprotocols",
    "remote_address",
    "method",
    "user",
)

# Parts of real heads, cut anywhere, with any bytes between them, 128 of which fill a piece.
cuts = st.builds(
    lambda head, ends: head[min(ends) : max(ends)],
    st.sampled_from(list(HEADS.values())),
    st.tuples(st.integers(0, 700), st.integers(0, 700)),
)
rows = st.lists(st.one_of(cuts, st.binary(max_size=300))).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(rows)
@example(b"")
@example(b"\0")
@example(os.urandom(127))
@example(os.urandom(128))
@example(os.urandom(129))
@example(b"Sec-WebSocket-Version: 13" * 500)
def test_what_was_packed_is_unpacked_the_same_and_never_takes_more(head):
    packed = pack_head(head)
    if packed is not None:
        assert len(packed) < len(head)
        assert unpack_head(packed) == head


@pytest.mark.parametrize(("name", "most"), [("Chrome", 210), ("Firefox", 150), ("Safari", 170), ("bare", 60)])
def test_of_a_head_little_more_is_kept_than_what_is_the_visitors_own(name, most):
    assert len(pack_head(HEADS[name])) <= most


def test_of_16_kib_that_cannot_be_packed_no_more_is_kept():
    assert pack_head(random.Random(1).randbytes(16384)) is None


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=40))
def test_nothing_is_read_beyond_what_was_packed_or_is_usual(data):
    with suppress(IndexError):
        assert len(unpack_head(data)) <= 259 * len(data)


def facts(request):
    return {name: getattr(request, name) for name in FACTS} | {"headers": list(request.headers.items())}


class Reader(Listener):
    """Records what the request says at each stage of a connection's life."""

    def __init__(self):
        self.told = []

    def on_handshake(self, request):
        request.user = "ann"
        self.told.append(facts(request))

    def on_open(self, ws):
        self.told.append(facts(ws.request))

    def on_message(self, ws, message):
        self.told.append(facts(ws.request))

    def on_close(self, ws, code, reason):
        self.told.append(facts(ws.request))


def long_head(generator):
    """15 KiB of field values with any allowed bytes."""
    allowed = bytes([*range(0x21, 0x7F), *range(0x80, 0x100)])
    fields = [bytes(generator.choices(allowed, k=1500)) for _ in range(10)]
    return BARE[:-2] + b"".join(b"X-%d: %s\r\n" % field for field in enumerate(fields)) + b"\r\n"


@pytest.mark.parametrize("name", [*HEADS, "query", "long"])
async def test_a_request_tells_the_same_in_the_handshake_while_open_and_in_the_end(serve, dial, name):
    heads = HEADS | {
        "query": BARE.replace(b" HTTP", b"?a=1&b=%C3%A9&a=2 HTTP").replace(b"cars", b"fast%20cars"),
        "long": long_head(random.Random(1)),
    }
    site = await serve(reader := Reader())
    raw = await dial(site.url)
    await raw.send(heads[name])
    assert (await raw.response()).status == 101
    await raw.send(b"\x82\x80\0\0\0\0" * 2)
    raw.half_close()
    await eventually(lambda: len(reader.told) == 5)
    assert reader.told == reader.told[:1] * 5


async def test_an_open_connection_keeps_its_head_packed(serve, dial):
    site = await serve(Listener())
    lines = b"Accept-Language: en-US,en;q=0.9\r\nCache-Control: no-cache\r\n" * 240
    head = BARE.replace(b"AQIDBAUGBwgJCgsMDQ4PEA==", KEY.encode())[:-2] + lines + b"\r\n"
    tracemalloc.start()
    try:
        gc.collect()
        before, count = tracemalloc.get_traced_memory()[0], 50
        kept = [await dial(site.url) for _ in range(count)]
        for raw in kept:
            await raw.send(head)
            assert (await raw.response()).status == 101
        await eventually(lambda: len(site.manager.connections) == count)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < count * len(head) / 2
