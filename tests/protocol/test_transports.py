"""The other kind of wire, an asyncio transport: over TLS, and on systems without epoll."""

import asyncio
import random
from urllib.parse import urlsplit

import pytest

from fastws.testing import Refused

from ..lib.raw import BINARY, CLOSE, CONTINUATION, KEY, PING, TEXT, TIMEOUT, accept_of, close_frame, frame, request
from ..lib.support import Echo, Recorder


@pytest.fixture(params=["tls", "no epoll"])
def wire(request, monkeypatch):
    if request.param == "no epoll":
        monkeypatch.setattr("fastws.server.has_epoll", False)
    return request.param


@pytest.fixture
async def start(serve, wire, server_side):
    async def started(*arguments, **options):
        return await serve(*arguments, ssl=server_side if wire == "tls" else None, **options)

    return started


@pytest.fixture
async def enter(join, wire, client_side):
    async def connected(url, **options):
        return await join(url, ssl=client_side if wire == "tls" else None, **options)

    return connected


@pytest.fixture
async def stream(wire, client_side):
    """A stream to the server after a handshake: (reader, writer)."""
    writers = []

    async def opened(url, extra=b""):
        context = client_side if wire == "tls" else None
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port, ssl=context, limit=1024)
        writers.append(writer)
        writer.write(request("/ws/cars") + extra)
        head = await reader.readuntil(b"\r\n\r\n")
        assert accept_of(KEY).encode() in head
        return reader, writer

    yield opened
    for writer in writers:
        writer.transport.abort()


async def read_frame(reader):
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length > 125:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
    return first & 0x0F, await reader.readexactly(length)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 16384, 65535, 65536, 1_000_000])
async def test_messages_of_any_size_go_in_and_out(start, enter, size):
    site = await start(Echo())
    client = await enter(f"{site.url}/ws/cars")
    data = random.Random(size).randbytes(size)
    await client.send(data)
    assert await client.receive() == data


async def test_the_url_says_wss_and_the_websocket_that_it_is_secure(start, enter, wire):
    site = await start(recorder := Recorder())
    client = await enter(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    assert ws.is_secure == site.url.startswith("wss://") == (wire == "tls")
    assert ws.remote_address == client.local_address


async def test_channels_broadcasts_and_order_are_the_same(start, enter):
    site = await start(recorder := Recorder())
    clients = [await enter(f"{site.url}/ws/cars") for _ in range(5)]
    await recorder.until("on_subscribe", 5)
    for number in range(200):
        assert site.manager.broadcast("cars", number) == 5
        recorder.sockets[0].send("own")
    for client in clients[1:]:
        assert [await client.receive_json() for _ in range(200)] == list(range(200))
    own = [await clients[0].receive() for _ in range(400)]
    assert own == [part for number in range(200) for part in (str(number), "own")]


async def test_bytes_split_anywhere_are_understood(start, stream):
    site = await start(Echo())
    reader, writer = await stream(site.url)
    data = frame(TEXT, b"Gr\xc3", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"\xbc\xc3\x9fe")
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await read_frame(reader) == (0xA, b"p")
    assert await read_frame(reader) == (TEXT, "Grüße".encode())


async def test_messages_in_one_packet_with_the_handshake_are_not_lost(start, stream):
    site = await start(Echo())
    reader, _ = await stream(site.url, frame(TEXT, b"one") + frame(TEXT, b"two"))
    assert [await read_frame(reader) for _ in range(2)] == [(TEXT, b"one"), (TEXT, b"two")]


async def test_a_refusal_has_its_status_and_body(start, enter):
    site = await start()
    with pytest.raises(Refused) as refused:
        await enter(f"{site.url}/nowhere")
    assert refused.value.status == 404
    assert refused.value.error["message"]


@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(TEXT, b"x", mask=None), 1002), (frame(TEXT, b"\xff"), 1007), (frame(TEXT, announced=2 << 20), 1009)],
)
async def test_violations_are_failed_with_their_code(start, stream, data, code):
    site = await start()
    reader, writer = await stream(site.url)
    writer.write(data)
    opcode, payload = await read_frame(reader)
    assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2))
    assert await reader.read() == b""


async def test_both_sides_close_with_their_codes(start, enter):
    site = await start(recorder := Recorder())
    first, second = await enter(f"{site.url}/ws/cars"), await enter(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe", 2)
    assert await first.close(4001, "mine") == (4001, "")
    recorder.sockets[1].close(4002, "yours")
    assert await second.closed() == (4002, "yours")
    await recorder.until("on_close", 2)
    assert recorder.of("on_close") == [(4001, "mine"), (4002, "")]


async def test_a_dropped_connection_is_1006(start, enter):
    site = await start(recorder := Recorder())
    client = await enter(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    client.abort()
    assert await recorder.until("on_close") == (1006, "")


async def test_a_large_message_is_written_in_order_with_what_follows(start, stream):
    site = await start(recorder := Recorder(), max_backlog=64 << 20)
    reader, _ = await stream(site.url)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    big = random.Random(1).randbytes(8 << 20)
    for number in range(3):
        ws.send(big)
        ws.send(str(number))
    ws.close(4000)
    for number in range(3):
        opcode, payload = await read_frame(reader)
        assert opcode == BINARY
        assert payload == big
        assert await read_frame(reader) == (TEXT, str(number).encode())
    assert (await read_frame(reader))[0] == CLOSE


@pytest.mark.parametrize("has_epoll", [True, False])
async def test_a_peer_that_half_closed_gets_all_that_is_pending(serve, dial, monkeypatch, has_epoll):
    monkeypatch.setattr("fastws.server.has_epoll", has_epoll)
    site = await serve(recorder := Recorder(), max_backlog=64 << 20)
    raw = await dial(site.url, "/ws/cars", receive_buffer=64 * 1024)
    await recorder.until("on_subscribe")
    data = random.Random(1).randbytes(16 << 20)
    recorder.sockets[0].send(data)
    raw.half_close()
    assert await recorder.until("on_close") == (1006, "")
    assert (await raw.frame()).payload == data
    assert await raw.eof() == b""


@pytest.mark.parametrize("overflow", ["close", "drop_oldest", "drop_newest"])
async def test_a_slow_reader_meets_the_overflow_policy_with_whole_frames(start, stream, overflow):
    site = await start(recorder := Recorder(), max_backlog=64 * 1024, overflow=overflow)
    reader, writer = await stream(site.url)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    sent = acted = 0
    while acted < 100 and ws.is_open:
        assert sent < 20_000, "the slow reader was never noticed"
        ws.send(sent.to_bytes(4) * 1024)
        sent += 1
        stats = site.manager.stats
        acted = stats["closed_slow"] + stats["dropped_oldest"] + stats["dropped_newest"]
        await asyncio.sleep(0)
    ws.send(b"marker")
    numbers = []
    while True:
        opcode, payload = await read_frame(reader)
        if opcode == CLOSE or payload == b"marker":
            break
        number = int.from_bytes(payload[:4])
        assert payload == number.to_bytes(4) * 1024
        numbers.append(number)
        if overflow != "close" and len(numbers) % 10 == 0:
            ws.send(b"marker")
    assert numbers == sorted(set(numbers))
    if overflow == "close":
        assert payload == (1013).to_bytes(2) + b"too slow"
        assert numbers == list(range(len(numbers)))
        writer.write(close_frame(1013))
        assert await reader.read() == b""
    else:
        assert len(numbers) < sent


async def test_stop_loses_nothing(start, stream):
    site = await start(recorder := Recorder())
    reader, writer = await stream(site.url)
    await recorder.until("on_subscribe")
    for number in range(200):
        recorder.sockets[0].send(number.to_bytes(4) * 1024)
    stopping = asyncio.create_task(site.server.stop())
    for number in range(200):
        assert await read_frame(reader) == (BINARY, number.to_bytes(4) * 1024)
    opcode, payload = await read_frame(reader)
    assert (opcode, payload[:2]) == (CLOSE, (1001).to_bytes(2))
    writer.write(close_frame(1001))
    assert await reader.read() == b""
    writer.close()
    await stopping
    assert recorder.of("on_close") == [(1001, "")]


async def test_plain_text_on_the_tls_port_harms_nobody(serve, dial, join, server_side, client_side):
    site = await serve(Echo(), ssl=server_side)
    raw = await dial(site.url.replace("wss:", "ws:"))
    await raw.send(request("/ws/cars"))
    await raw.eof()
    client = await join(f"{site.url}/ws/cars", ssl=client_side)
    await client.send("fine")
    assert await client.receive() == "fine"


async def test_a_client_that_is_silent_after_the_tls_handshake_is_dropped(serve, server_side, client_side):
    site = await serve(handshake_timeout=1, ssl=server_side)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port, ssl=client_side)
    async with asyncio.timeout(TIMEOUT):
        assert (await reader.read())[:13] in (b"", b"HTTP/1.1 408 ")
    writer.close()
