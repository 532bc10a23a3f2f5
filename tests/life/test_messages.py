"""Messages in and out: types, return values, order, and waiting for an async handler."""

import asyncio

import pytest

from fastws import Listener

from ..lib.raw import BINARY, TEXT, close_frame, frame, request
from ..lib.support import Echo, Recorder

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537, 1_000_000]


class Returning(Listener):
    """Answers each message from `answers`."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def on_message(self, ws, message):
        return next(self.answers)


@pytest.mark.parametrize("size", SIZES)
async def test_text_of_any_size_goes_in_and_out(serve, join, size):
    site = await serve(Echo())
    client = await join(f"{site.url}/ws/cars")
    text = ("é" + "x" * size)[:size]
    await client.send(text)
    assert await client.receive() == text


@pytest.mark.parametrize("size", SIZES)
async def test_binary_of_any_size_goes_in_and_out(serve, join, size):
    site = await serve(Echo())
    client = await join(f"{site.url}/ws/cars")
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    await client.send(data)
    assert await client.receive() == data


async def test_a_handler_gets_str_for_text_and_bytes_for_binary(serve, join):
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars")
    await client.send("déjà vu 🚗")
    await client.send(b"\x00\xff")
    await client.send("")
    await client.send(b"")
    await recorder.until("on_message", 4)
    messages = [message for (message,) in recorder.of("on_message")]
    assert messages == ["déjà vu 🚗", b"\x00\xff", "", b""]
    assert [type(message) for message in messages] == [str, bytes, str, bytes]


@pytest.mark.parametrize(
    ("answer", "received"),
    [
        ("text", "text"),
        ("", ""),
        ("a\0b", "a\0b"),
        (b"bytes", b"bytes"),
        (b"", b""),
        (bytearray(b"array"), b"array"),
        (memoryview(b"a view")[2:], b"view"),
        ({"type": "hi", "n": 1}, '{"type":"hi","n":1}'),
        ([1, "é", None], '[1,"é",null]'),
        (42, "42"),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
        ({}, "{}"),
    ],
)
async def test_the_type_of_a_message_decides_how_it_goes_out(serve, join, answer, received):
    site = await serve(Returning(answer))
    client = await join(f"{site.url}/ws/cars")
    await client.send("?")
    assert await client.receive() == received
    (ws,) = site.manager.connections.values()
    assert ws.send(answer) is True
    assert await client.receive() == received
    assert site.manager.broadcast("cars", answer) == 1
    assert await client.receive() == received


async def test_none_returned_sends_nothing(serve, join):
    site = await serve(Returning(None, "second"))
    client = await join(f"{site.url}/ws/cars")
    await client.send("1")
    assert await client.received() == []
    await client.send("2")
    assert await client.receive() == "second"


async def test_what_a_handler_returns_goes_to_the_sender_alone(serve, join):
    site = await serve(Echo())
    ann, bob = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    await ann.send("hi")
    assert await ann.receive() == "hi"
    assert await bob.received() == []


async def test_what_an_async_handler_returns_is_sent_too(serve, join):
    class Slow(Listener):
        async def on_message(self, ws, message):
            await asyncio.sleep(0)
            return message.upper()

    site = await serve(Slow())
    client = await join(f"{site.url}/ws/cars")
    await client.send("hi")
    assert await client.receive() == "HI"


async def test_a_message_that_is_no_json_is_a_type_error_and_sends_nothing(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    (ws,) = site.manager.connections.values()
    for attempt in (
        lambda: ws.send(object()),
        lambda: site.manager.broadcast("cars", object()),
        lambda: site.manager.send(ws.id, object()),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert await client.received() == []


async def test_a_str_with_a_lone_surrogate_is_refused_and_sends_nothing(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    with pytest.raises(ValueError, match="surrogate"):
        site.manager.broadcast("cars", "\ud800")
    assert await client.received() == []


async def test_order_holds_over_channels_users_and_direct_sends(serve, join):
    class Login(Recorder):
        def on_handshake(self, request):
            request.user = "ann"

    site = await serve(login := Login())
    client = await join(f"{site.url}/ws/cars")
    await login.until("on_subscribe")
    (ws,) = site.manager.connections.values()
    ws.subscribe("bikes")
    for turn in range(0, 500, 5):
        site.manager.broadcast("cars", turn)
        ws.send(turn + 1)
        site.manager.broadcast("bikes", turn + 2)
        site.manager.send(ws.id, turn + 3)
        site.manager.send_to_user("ann", turn + 4)
        if turn % 50 == 0:
            await asyncio.sleep(0)
    assert [await client.receive_json() for _ in range(500)] == list(range(500))


async def test_a_send_from_on_open_comes_before_the_channels_messages(serve, join):
    class Greet(Listener):
        def on_open(self, ws):
            ws.send("welcome")

        def on_subscribe(self, ws, channel, subscribers):
            ws.manager.broadcast(channel, "joined")

    site = await serve(Greet())
    client = await join(f"{site.url}/ws/cars")
    assert [await client.receive(), await client.receive()] == ["welcome", "joined"]


async def test_many_messages_in_one_packet_are_handled_in_order(serve, dial):
    site = await serve(Echo())
    raw = await dial(site.url)
    data = b"".join(frame(TEXT, b"%d" % number) for number in range(1000))
    await raw.send(request("/ws/cars") + data)
    await raw.response()
    assert [int(await raw.text()) for _ in range(1000)] == list(range(1000))


async def test_an_async_handler_is_never_entered_twice_for_one_connection(serve, join):
    class Slow(Listener):
        inside = 0

        async def on_message(self, ws, message):
            self.inside += 1
            assert self.inside == 1
            await asyncio.sleep(0.001 if int(message) % 7 == 0 else 0)
            self.inside -= 1
            return message

    site = await serve(Slow())
    client = await join(f"{site.url}/ws/cars")
    for number in range(100):
        await client.send(str(number))
    assert [int(await client.receive()) for _ in range(100)] == list(range(100))


async def test_a_slow_handler_of_one_connection_delays_no_other(serve, join):
    release = asyncio.Event()

    class Slow(Listener):
        async def on_message(self, ws, message):
            if message == "wait":
                await release.wait()
            return message

    site = await serve(Slow())
    slow, quick = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    await slow.send("wait")
    await quick.send("quick")
    assert await quick.receive() == "quick"
    release.set()
    assert await slow.receive() == "wait"


async def test_past_a_bound_the_socket_behind_a_busy_handler_is_not_read(serve, dial):
    entered, release = asyncio.Event(), asyncio.Event()
    handled = []

    class Slow(Listener):
        async def on_message(self, ws, message):
            handled.append(int.from_bytes(message[:4]))
            entered.set()
            await release.wait()

    site = await serve(Slow())
    raw = await dial(site.url, "/ws/cars")
    count, size = 1000, 65536
    data = b"".join(frame(BINARY, n.to_bytes(4) + bytes(size - 4)) for n in range(count))
    sending = asyncio.create_task(raw.send(data))
    await entered.wait()
    # 64 MiB exceed the kernel's buffers and any sensible limit, so this must stall.
    done, _ = await asyncio.wait({sending}, timeout=1)
    assert not done, "everything was read although the handler never came back"
    assert handled == [0]
    release.set()
    await sending
    await raw.send(close_frame(1000))
    assert await raw.close_code() == 1000
    assert handled == list(range(count))


async def test_messages_before_the_peers_close_are_all_handled(serve, join):
    class Slow(Recorder):
        async def on_message(self, ws, message):
            await asyncio.sleep(0)
            self.note("on_message", message)

    site = await serve(slow := Slow())
    client = await join(f"{site.url}/ws/cars")
    for number in range(20):
        await client.send(str(number))
    await client.close(1000, "done")
    assert await slow.until("on_close") == (1000, "done")
    await slow.until("on_message", 20)
    assert slow.of("on_message") == [(str(number),) for number in range(20)]
    # The last handler may still be running.
    assert slow.names.index("on_close") >= slow.names.index("on_message") + 19


async def test_a_listener_without_on_message_ignores_messages(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    await client.send("anyone?")
    assert await client.received() == []


@pytest.mark.parametrize("size", [1, 64, 1000])
async def test_handlers_may_keep_the_messages_they_were_given(serve, dial, size):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url, "/ws/cars")
    sent = [bytes([number]) * size for number in range(50)]
    await raw.send(b"", pieces=[frame(BINARY, data) for data in sent])
    await recorder.until("on_message", 50)
    assert [message for (message,) in recorder.of("on_message")] == sent
