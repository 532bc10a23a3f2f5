"""RFC 6455 4.2: a valid handshake, and what the application learns from it."""

import asyncio

import pytest

from fastws import Listener

from ..lib.raw import KEY, TEXT, accept_of, frame, request
from ..lib.support import Echo, Recorder


async def test_the_answer_proves_that_the_key_was_read(serve, dial):
    site = await serve()
    response = await (await dial(site.url)).upgrade("/ws/cars")
    assert response.status == 101
    assert response["Upgrade"].lower() == "websocket"
    assert response["Connection"].lower() == "upgrade"
    assert response["Sec-WebSocket-Accept"] == accept_of(KEY)
    assert response["Sec-WebSocket-Protocol"] is None
    assert response["Sec-WebSocket-Extensions"] is None


async def test_a_target_in_absolute_form_is_understood(serve, dial):
    site = await serve(recorder := Recorder())
    await (await dial(site.url)).upgrade("http://127.0.0.1/ws/cars?a=1")
    (made,) = await recorder.until("on_handshake")
    assert (made.path, made.query_string) == ("/ws/cars", "a=1")


async def test_a_handshake_may_be_split_at_any_byte(serve, dial):
    site = await serve(Echo())
    data = request("/ws/cars") + frame(TEXT, b"hi")
    for cut in range(1, len(data)):
        raw = await dial(site.url)
        await raw.send(data[:cut], pieces=[data[cut:]])
        assert (await raw.response()).status == 101
        assert await raw.text() == "hi"
        raw.close()


async def test_a_handshake_may_come_byte_by_byte(serve, dial):
    site = await serve(Echo())
    raw = await dial(site.url)
    data = request("/ws/cars")
    await raw.send(b"", pieces=[data[i : i + 1] for i in range(len(data))])
    assert (await raw.response()).status == 101


async def test_messages_in_one_packet_with_the_handshake_are_not_lost(serve, dial):
    site = await serve(Echo())
    raw = await dial(site.url)
    await raw.send(request("/ws/cars") + frame(TEXT, b"one") + frame(TEXT, b"two"))
    assert (await raw.response()).status == 101
    assert [await raw.text(), await raw.text()] == ["one", "two"]


async def test_messages_wait_until_an_async_on_handshake_and_on_open_are_done(serve, dial):
    may_open = asyncio.Event()

    class Slow(Echo):
        async def on_handshake(self, request):
            await may_open.wait()

        async def on_open(self, ws):
            await asyncio.sleep(0)
            ws.send("welcome")

    site = await serve(Slow())
    raw = await dial(site.url)
    await raw.send(request("/ws/cars") + frame(TEXT, b"one"))
    await raw.send(frame(TEXT, b"two"))
    may_open.set()
    assert (await raw.response()).status == 101
    assert [await raw.text() for _ in range(3)] == ["welcome", "one", "two"]


async def test_on_handshake_sees_the_whole_request(serve, dial):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url)
    await raw.upgrade(
        "/ws/fast%20cars?user=ann&x=%C3%A9",
        extra=[
            ("X-Thing", "1"),
            ("Cookie", "sid=abc; theme=dark"),
            ("Sec-WebSocket-Protocol", "a, b"),
            ("Sec-WebSocket-Protocol", "c"),
        ],
    )
    (made,) = await recorder.until("on_handshake")
    assert made.path == "/ws/fast cars"
    assert dict(made.path_parameters) == {"channel": "fast cars"}
    assert made.query_string == "user=ann&x=%C3%A9"
    assert (made.query["user"], made.query["x"]) == ("ann", "é")
    assert dict(made.cookies) == {"sid": "abc", "theme": "dark"}
    assert list(made.subprotocols) == ["a", "b", "c"]
    assert made.remote_address == raw.address


async def test_headers_are_case_insensitive(serve, dial):
    seen = {}

    class Look(Listener):
        def on_handshake(self, request):
            for name in ("X-Thing", "x-thing", "X-THING"):
                seen[name] = (request.headers[name], name in request.headers)
            seen["absent"] = request.headers.get("x-none")

    site = await serve(Look())
    await (await dial(site.url)).upgrade("/ws/cars", extra=[("x-tHing", "1")])
    assert seen == {
        "X-Thing": ("1", True),
        "x-thing": ("1", True),
        "X-THING": ("1", True),
        "absent": None,
    }


async def test_headers_are_a_mapping_in_which_a_field_that_came_twice_is_joined(serve, dial):
    seen = {}

    class Look(Listener):
        def on_handshake(self, request):
            seen.update(request.headers)
            seen["length"] = len(request.headers)

    site = await serve(Look())
    await (await dial(site.url)).upgrade("/ws/cars", extra=[("X-Two", "1"), ("x-two", "2")])
    assert seen.pop("length") == len(seen) == 6
    assert {name.lower(): value for name, value in seen.items()}["x-two"] == "1, 2"


async def test_a_request_without_query_cookies_or_subprotocols_has_empty_ones(serve, dial):
    site = await serve(recorder := Recorder())
    await (await dial(site.url)).upgrade("/ws/cars")
    (made,) = await recorder.until("on_handshake")
    assert made.query_string == ""
    assert dict(made.query) == {}
    assert dict(made.cookies) == {}
    assert list(made.subprotocols) == []
    assert made.user is None


async def test_what_on_handshake_writes_is_on_the_websocket(serve, join):
    opened = asyncio.get_running_loop().create_future()

    class Login(Listener):
        def on_handshake(self, request):
            request.user = "ann"
            request.data["room"] = 7

        def on_open(self, ws):
            opened.set_result(ws)

    site = await serve(Login())
    await join(f"{site.url}/ws/cars")
    ws = await opened
    assert ws.user == ws.request.user == "ann"
    assert ws.data == {"room": 7}
    assert ws["room"] == 7
    ws["room"] = 8
    assert ws.data["room"] == 8


async def test_the_websocket_knows_its_request_and_itself(serve, join):
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars?a=1")
    (ws,) = await recorder.until("on_open")
    assert isinstance(ws.id, str)
    assert ws.id
    assert ws.manager is site.manager
    assert ws.is_open
    assert not ws.is_secure
    assert ws.subprotocol is None
    assert ws.request.path == "/ws/cars"
    assert (ws.path_parameters, ws.query_string) == ({"channel": "cars"}, "a=1")
    assert ws.remote_address == client.local_address
    await client.close()
    await recorder.until("on_close")
    assert not ws.is_open


async def test_the_request_stays_readable_on_an_open_connection(serve, dial):
    site = await serve(recorder := Recorder())
    raw = await dial(site.url)
    await raw.upgrade("/ws/cars?a=1", extra=[("X-Thing", "1"), ("Cookie", "sid=abc")])
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    assert ws.headers["x-thing"] == ws.request.headers["X-Thing"] == "1"
    assert ws.cookies["sid"] == "abc"
    assert ws.query["a"] == "1"
    assert (ws.path, ws.session) == ("/ws/cars", None)


async def test_the_websocket_reads_like_a_dict_of_its_data(serve, join):
    site = await serve(recorder := Recorder())
    await join(f"{site.url}/ws/cars")
    await recorder.until("on_open")
    (ws,) = recorder.sockets
    ws["room"] = 7
    assert "room" in ws
    del ws["room"]
    assert "room" not in ws
    with pytest.raises(KeyError):
        ws["room"]
    with pytest.raises(TypeError):
        iter(ws)


async def test_response_headers_are_sent(serve, join):
    class Trace(Listener):
        def on_handshake(self, request):
            request.response_headers["X-Trace"] = "abc"
            request.response_headers["Set-Cookie"] = "sid=1; HttpOnly"

    site = await serve(Trace())
    client = await join(f"{site.url}/ws/cars")
    assert client.headers["x-trace"] == "abc"
    assert client.headers["set-cookie"] == "sid=1; HttpOnly"


async def test_a_header_value_cannot_smuggle_in_another_header(serve, dial):
    class Careless(Listener):
        def on_handshake(self, request):
            request.response_headers["X-Name"] = request.query["name"]

    site = await serve(Careless())
    raw = await dial(site.url)
    await raw.send(request("/ws/cars?name=a%0D%0AX-Injected:%201"))
    response = await raw.response()
    assert response["X-Injected"] is None
    assert response.status == 500


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["chat.v2"], "chat.v2"), (["x", "chat.v1"], "chat.v1"), (["x"], None), ([], None)],
)
async def test_the_server_picks_a_subprotocol_it_speaks(serve, join, offered, chosen):
    site = await serve(recorder := Recorder(), subprotocols=["chat.v2", "chat.v1"])
    client = await join(f"{site.url}/ws/cars", subprotocols=offered)
    (ws,) = await recorder.until("on_open")
    assert client.subprotocol == ws.subprotocol == chosen


async def test_on_handshake_may_pick_the_subprotocol(serve, join):
    class Pick(Recorder):
        def on_handshake(self, request):
            request.subprotocol = request.subprotocols[-1]

    site = await serve(pick := Pick())
    client = await join(f"{site.url}/ws/cars", subprotocols=["a", "b"])
    (ws,) = await pick.until("on_open")
    assert client.subprotocol == ws.subprotocol == "b"


async def test_a_subprotocol_nobody_offered_is_never_sent(serve, dial):
    class Wrong(Listener):
        def on_handshake(self, request):
            request.subprotocol = "nobody-offered-this"

    site = await serve(Wrong())
    raw = await dial(site.url)
    await raw.send(request("/ws/cars", extra=[("Sec-WebSocket-Protocol", "a")]))
    assert (await raw.response())["Sec-WebSocket-Protocol"] is None


async def test_an_origin_on_the_list_may_come_in(serve, join):
    site = await serve(origins=["https://example.org", "http://localhost:3000"])
    client = await join(f"{site.url}/ws/cars", origin="http://localhost:3000")
    assert await client.received() == []


async def test_without_a_list_any_origin_may_come_in(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars", origin="https://evil.example")
    assert await client.received() == []


async def test_handlers_may_be_async(serve, join):
    class Async(Recorder):
        async def on_handshake(self, request):
            await asyncio.sleep(0)
            request.user = "ann"

        async def authorize(self, request, channel):
            await asyncio.sleep(0)
            self.note("authorize", request.user, channel)

        async def on_open(self, ws):
            await asyncio.sleep(0)
            self.note("on_open", ws.user)

    site = await serve(listener := Async())
    await join(f"{site.url}/ws/cars")
    await listener.until("on_subscribe")
    assert listener.calls == [
        ("authorize", "ann", "cars"),
        ("on_open", "ann"),
        ("on_user_online", "ann"),
        ("on_channel_open", "cars"),
        ("on_subscribe", *listener.of("on_subscribe")[0]),
    ]


async def test_ids_are_unique(serve, join):
    site = await serve()
    for _ in range(20):
        await join(f"{site.url}/ws/cars")
    assert len(site.manager.connections) == 20
    assert len({ws.id for ws in site.manager.connections.values()}) == 20
