"""The client of `fastws.testing`: it must neither hang nor hide what happened."""

import asyncio
import re

import picows
import pytest

from fastws import Listener, Server
from fastws.testing import Closed, connect, running

from ..lib.raw import accept_of, frame
from ..lib.support import Echo, Recorder


async def test_a_receive_times_out_and_says_what_it_waited_for(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars", timeout=0.05)
    with pytest.raises(TimeoutError, match=r"0.05 s for a message"):
        await client.receive()
    with pytest.raises(TimeoutError, match=r"0.05 s for the connection to close"):
        await client.closed()
    client.timeout = 5
    site.manager.broadcast("cars", "now")
    assert await client.receive() == "now"


async def test_messages_are_received_before_the_end_is(serve, join):
    class Last(Listener):
        def on_open(self, ws):
            ws.send("last words")
            ws.close(4000, "gone")

    site = await serve(Last())
    client = await join(f"{site.url}/ws/cars")
    assert await client.closed() == (4000, "gone")
    assert await client.receive() == "last words"
    for attempt in (client.receive, client.ping, client.received):
        with pytest.raises(Closed) as closed:
            await attempt()
        assert (closed.value.code, closed.value.reason) == (4000, "gone")


async def test_everything_can_be_sent_and_json_received(serve, join):
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars")
    for message in ("text", b"bytes", bytearray(b"array"), memoryview(b"view"), {"n": [1]}):
        await client.send(message)
    await recorder.until("on_message", 5)
    messages = [message for (message,) in recorder.of("on_message")]
    assert messages == ["text", b"bytes", b"array", b"view", '{"n":[1]}']
    site.manager.broadcast("cars", {"n": 1})
    assert await client.receive_json() == {"n": 1}


async def test_received_gives_everything_so_far_and_forgets_it(serve, join):
    site = await serve(Echo())
    client = await join(f"{site.url}/ws/cars")
    await client.send("a")
    await client.send(b"b")
    assert await client.received() == ["a", b"b"]
    assert await client.received() == []


async def test_two_may_wait_on_one_client(serve, join):
    site = await serve(Echo())
    client = await join(f"{site.url}/ws/cars")
    both = asyncio.gather(client.receive(), client.receive())
    await client.send("a")
    await client.send("b")
    assert sorted(await both) == ["a", "b"]


async def test_the_block_ends_with_a_close_handshake(serve):
    site = await serve(recorder := Recorder())
    async with connect(f"{site.url}/ws/cars") as client:
        assert await client.ping() < 5
    assert await client.closed() == (1000, "")
    assert await recorder.until("on_close") == (1000, "")


async def test_a_block_that_raises_drops_the_connection(serve):
    site = await serve(recorder := Recorder())
    with pytest.raises(ZeroDivisionError):
        async with connect(f"{site.url}/ws/cars"):
            raise ZeroDivisionError
    assert await recorder.until("on_close") == (1006, "")


async def test_headers_and_origin_are_sent(serve, join):
    site = await serve(recorder := Recorder())
    await join(f"{site.url}/ws/cars", headers={"Cookie": "a=1"}, origin="http://example.org")
    (request,) = await recorder.until("on_handshake")
    assert request.headers["origin"] == "http://example.org"
    assert dict(request.cookies) == {"a": "1"}


async def test_a_server_that_breaks_the_protocol_is_not_passed_over():
    async def break_it(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = re.search("Sec-WebSocket-Key: (.*)\r\n", head)[1]
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_of(key).encode() + b"\r\n\r\n"
        )
        writer.write(frame(0x3, b"an opcode that is none", mask=None))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(break_it, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(picows.WSProtocolError):
            async with connect(f"ws://127.0.0.1:{port}/") as client:
                await client.receive()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "localhost"])
async def test_running_gives_an_address_that_can_be_dialled(host):
    server = Server(host=host, port=0)
    server.endpoint("/", Echo())
    async with running(server) as url, connect(f"{url}/") as client:
        await client.send("hi")
        assert await client.receive() == "hi"
