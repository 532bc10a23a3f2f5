"""RFC 6455 7: the close handshake from both sides, codes and reasons, and what is left afterwards."""

import asyncio

import pytest

from fastws import Listener

from ..lib.raw import CLOSE, PING, TEXT, close_frame, frame
from ..lib.support import Echo, Recorder, eventually

LEGAL = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
ILLEGAL = [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535, 65536]


@pytest.fixture
async def opened(serve, join):
    """A recorder, its open WebSocket, and the client at the other end."""
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    return recorder, recorder.sockets[0], client


@pytest.mark.parametrize("code", LEGAL)
async def test_the_server_may_close_with_every_legal_code(opened, code):
    recorder, ws, client = opened
    ws.close(code, "that's all")
    assert await client.closed() == (code, "that's all")
    assert await recorder.until("on_close") == (code, "")


@pytest.mark.parametrize("code", ILLEGAL)
async def test_a_code_that_may_not_be_sent_is_a_value_error(opened, code):
    _, ws, client = opened
    with pytest.raises(ValueError, match=str(code)):
        ws.close(code)
    assert ws.is_open
    assert ws.send("still here")
    assert await client.receive() == "still here"


async def test_a_reason_of_123_bytes_is_the_longest(opened):
    _, ws, client = opened
    with pytest.raises(ValueError, match=r"12[34]"):
        ws.close(1000, "x" * 124)
    with pytest.raises(ValueError, match=r"12[34]"):
        ws.close(1000, "é" * 62)
    assert ws.is_open
    ws.close(1000, "é" * 61 + "x")
    assert await client.closed() == (1000, "é" * 61 + "x")


async def test_close_by_default_is_1000_without_a_reason(opened):
    _, ws, client = opened
    ws.close()
    assert await client.closed() == (1000, "")


@pytest.mark.parametrize("code", LEGAL)
async def test_the_peers_code_and_reason_reach_on_close_and_are_echoed(opened, code):
    recorder, _, client = opened
    assert (await client.close(code, "ciao é"))[0] == code
    assert await recorder.until("on_close") == (code, "ciao é")


async def test_a_close_without_a_code_is_1005(opened):
    recorder, _, client = opened
    assert (await client.close(None))[0] in (1000, 1005)
    assert await recorder.until("on_close") == (1005, "")


async def test_a_dropped_connection_is_1006(opened):
    recorder, ws, client = opened
    client.abort()
    assert await recorder.until("on_close") == (1006, "")
    assert not ws.is_open


@pytest.mark.parametrize("how", ["reset", "half_close", "close"])
async def test_the_end_of_the_stream_without_a_close_frame_is_1006(serve, dial, how):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars")
    getattr(raw, how)()
    assert await recorder.until("on_close") == (1006, "")
    assert len(site.manager.connections) == 0


async def test_a_reset_in_mid_frame_is_1006(serve, dial):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"whole") + frame(TEXT, b"never ends")[:9])
    await recorder.until("on_message")
    raw.reset()
    assert await recorder.until("on_close") == (1006, "")
    assert recorder.of("on_message") == [("whole",)]


async def test_the_server_closes_the_tcp_connection_first(serve, dial):
    site = await serve()
    raw = await dial(site.url, "/ws/cars")
    await raw.send(close_frame(1000))
    assert await raw.closing() == (1000, "")
    assert await raw.eof() == b""


async def test_once_closed_send_is_false_and_the_rest_does_nothing(opened):
    recorder, ws, client = opened
    await client.close()
    await recorder.until("on_channel_close")
    recorder.calls.clear()
    assert ws.send("x") is False
    assert ws.subscribe("cars") == 0
    assert ws.unsubscribe("cars") == 0
    ws.unsubscribe_all()
    ws.close(1000, "again")
    ws.ping()
    assert ws.manager.subscribe("cars", ws) == 0
    assert ws.channels == frozenset()
    assert recorder.calls == []
    assert len(ws.manager.channels) == 0


async def test_its_facts_are_readable_after_the_end(opened):
    recorder, ws, client = opened
    address, identity = client.local_address, ws.id
    ws["k"] = 1
    await client.close()
    await recorder.until("on_channel_close")
    assert (ws.id, ws["k"], ws.user, ws.is_open) == (identity, 1, None, False)
    assert ws.request.path == "/ws/cars"
    assert ws.request.remote_address == address
    assert ws.idle_timeout == 300


async def test_send_is_false_from_the_servers_own_close_on(opened):
    _, ws, client = opened
    assert ws.send("before") is True
    ws.close(4000, "kicked")
    assert not ws.is_open
    assert ws.send("after") is False
    assert ws.manager.broadcast("cars", "after") == 0
    assert await client.receive() == "before"
    assert await client.closed() == (4000, "kicked")
    assert await client.closed() == (4000, "kicked")


async def test_closing_twice_sends_one_close_frame(serve, dial):
    class Twice(Listener):
        def on_message(self, ws, message):
            ws.close(4001, "first")
            ws.close(4002, "second")
            return "too late"

    site = await serve(Twice())
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"go"))
    assert await raw.closing() == (4001, "first")
    await raw.send(close_frame(4001))
    assert await raw.eof() == b""


async def test_an_illegal_code_is_refused_even_when_closed(opened):
    recorder, ws, client = opened
    await client.close()
    await recorder.until("on_close")
    with pytest.raises(ValueError, match="1005"):
        ws.close(1005)


async def test_messages_sent_before_the_close_arrive_before_it(opened):
    _, ws, client = opened
    for number in range(100):
        ws.send(str(number) * 1000)
    ws.close()
    assert [await client.receive() for _ in range(100)] == [str(n) * 1000 for n in range(100)]
    assert await client.closed() == (1000, "")


async def test_after_the_servers_close_messages_of_the_peer_are_not_handled(serve, dial):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars")
    await recorder.until("on_subscribe")
    recorder.sockets[0].close(4000)
    await raw.send(frame(TEXT, b"late") + frame(PING, b"late") + close_frame(4000))
    assert await raw.close_code() == 4000
    assert await raw.eof() == b""
    assert await recorder.until("on_close") == (4000, "")
    assert recorder.of("on_message") == []


async def test_what_the_peer_sends_after_its_close_is_ignored(serve, dial):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars")
    late = frame(TEXT, b"late") + frame(PING, b"late") + close_frame(1001) + b"\xff\xff\xff"
    await raw.send(close_frame(1000) + late)
    assert await raw.close_code() == 1000
    assert await raw.eof() == b""
    assert await recorder.until("on_close") == (1000, "")
    assert recorder.of("on_message") == []


async def test_on_close_is_called_once_however_the_end_comes(serve, dial):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars")
    await recorder.until("on_subscribe")
    recorder.sockets[0].close(4000)
    await raw.send(close_frame(1000, b"crossing"))
    await raw.eof()
    await recorder.until("on_close")
    raw.reset()
    other = await dial(site.url, "/ws/cars")
    other.reset()
    await recorder.until("on_close", 2)
    assert recorder.of("on_close") == [(1000, "crossing"), (1006, "")]


async def test_a_handler_may_close_its_own_connection(serve, join):
    class Bye(Recorder):
        def on_message(self, ws, message):
            ws.close(4000, "you said " + message)

    site = await serve(bye := Bye())
    client = await join(f"{site.url}/ws/cars")
    await client.send("bye")
    assert await client.closed() == (4000, "you said bye")
    await bye.until("on_channel_close")


async def test_an_async_handler_that_outlives_its_connection_harms_nobody(serve, join):
    release, ended = asyncio.Event(), asyncio.Event()

    class Late(Recorder):
        async def on_message(self, ws, message):
            await release.wait()
            self.note("sent", ws.send("late"))
            ended.set()
            return "later"

    site = await serve(late := Late())
    client, other = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    await client.send("go")
    await client.ping()
    client.abort()
    await eventually(lambda: len(site.manager.connections) == 1)
    release.set()
    await ended.wait()
    assert late.of("sent") == [(False,)]
    assert await other.received() == []
    assert late.of("on_error") == []


async def test_a_pending_reply_goes_out_before_the_answer_to_a_close(serve, dial):
    site = await serve(Echo())
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"one") + frame(TEXT, b"two") + close_frame(1000))
    assert [await raw.text(), await raw.text()] == ["one", "two"]
    assert (await raw.frame()).opcode == CLOSE
