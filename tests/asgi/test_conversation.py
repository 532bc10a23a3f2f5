"""What an ASGI application receives and sends, from its scope to the disconnect."""

import asyncio

import pytest

from fastws import Listener
from fastws.asgi import ClientDisconnected

from ..lib.raw import TEXT, TIMEOUT, Raw, close_frame, frame
from ..lib.support import Echo, eventually, holds_nothing, records_naming
from .scripted import ACCEPT

GONE = {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_it_is_on_each_kind_of_wire(scripted, any_wire):
    app = await scripted(any_wire[1], **any_wire[0])
    call, client = await app.open("/a%20b/c?x=1&y", headers=[("X-Mine", "é"), ("X-Mine", "2")])
    scope = call.scope
    assert (scope["type"], scope["asgi"]) == ("websocket", {"version": "3.0", "spec_version": "2.4"})
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b/c", b"/a%20b/c", b"x=1&y")
    assert (scope["scheme"], scope["http_version"], scope["root_path"]) == ("wss" if any_wire[0] else "ws", "1.1", "")
    assert (scope["server"], scope["client"]) == (("127.0.0.1", app.server.port), client.local_address)
    assert [value for name, value in scope["headers"] if name == b"x-mine"] == ["é".encode(), b"2"]
    assert scope["state"] == {"begun": True}
    assert "websocket.http.response" in scope["extensions"]
    await client.send("text")
    await client.send(b"bytes")
    assert await call.receive() == {"type": "websocket.receive", "text": "text"}
    assert await call.receive() == {"type": "websocket.receive", "bytes": b"bytes"}
    await call.send({"type": "websocket.send", "text": "one", "bytes": None})
    await call.send({"type": "websocket.send", "bytes": b"two"})
    assert [await client.receive(), await client.receive()] == ["one", b"two"]
    await client.close(4000, "enough")
    disconnected = {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
    assert [await call.receive(), await call.receive()] == [disconnected, disconnected]
    call.returns()
    await eventually(lambda: not app.server._runner.tasks and holds_nothing(app.server._reactor))


async def test_states_are_copies(scripted):
    app = await scripted()
    one, _ = await app.open()
    one.scope["state"]["mine"] = 1
    other, _ = await app.open()
    assert other.scope["state"] == {"begun": True}


async def test_endpoints_come_first_and_the_option_turns_it_off(apply, join, scripted):
    app = await scripted()
    app.server.endpoint("/echo", Echo())
    client = await join(app.url + "/echo")
    await client.send("hi")
    assert await client.receive() == "hi"
    app.server.endpoint("/refuses", Refuses())
    refused = await app.refused(asyncio.create_task(join(app.url + "/refuses")))
    assert refused.status == 403
    assert app._arrived.empty()
    url, server = await apply(app, http_websockets=False)
    refused = await app.refused(asyncio.create_task(join(url)))
    assert (refused.status, refused.error["message"]) == (404, "no WebSocket endpoint at this path")
    with pytest.raises(RuntimeError, match="no application takes WebSockets here"):
        _ = server.asgi


class Refuses(Listener):
    def on_handshake(self, request):
        return False


# -- the handshake


async def test_a_subprotocol_and_header_fields_may_be_chosen(scripted):
    app = await scripted()
    call, client = await app.asked(subprotocols=["v1", "v2"])
    assert call.scope["subprotocols"] == ["v1", "v2"]
    fields = [(b"X-One", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await call.send({**ACCEPT, "subprotocol": "v2", "headers": fields})
    client = await client
    assert client.subprotocol == "v2"
    assert client.headers["X-One"] == "1"
    assert client.headers.getall("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("message", "error", "match"),
    [
        ({"subprotocol": "v9"}, ValueError, "subprotocol 'v9' was not offered"),
        ({"headers": [(b"x", b"a\r\nb: c")]}, ValueError, "cannot be sent"),
        ({"headers": [(b"Upgrade", b"h2c")]}, ValueError, "header 'upgrade' cannot be set"),
        ({"headers": [(b"sec-websocket-protocol", b"v1")]}, ValueError, "header 'sec-websocket-protocol' cannot be"),
        ({"headers": [("x", "y")]}, AttributeError, "decode"),
    ],
)
async def test_what_cannot_be_accepted_is_told_to_the_application_which_may_try_again(scripted, message, error, match):
    app = await scripted()
    call, client = await app.asked(subprotocols=["v1"])
    with pytest.raises(error, match=match):
        await call.send({**ACCEPT, **message})
    await call.send(ACCEPT)
    await (await client).send("hi")
    assert (await call.receive())["text"] == "hi"


async def test_a_close_before_the_accept_is_403(scripted):
    app = await scripted()
    call, client = await app.asked()
    await call.send({"type": "websocket.close", "code": 4000})
    refused = await app.refused(client)
    assert (refused.status, refused.error["message"]) == (403, "refused by the application")
    assert await call.receive() == GONE
    assert app.server.stats["handshakes"] == {("asgi", 403): 1}


async def test_a_denial_is_any_status_with_any_body(scripted):
    app = await scripted()
    call, client = await app.asked()
    fields = [
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-length", b"9"),
    ]
    await call.send({"type": "websocket.http.response.start", "status": 401, "headers": fields})
    await call.send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await call.send({"type": "websocket.http.response.body", "body": b"is it"})
    refused = await app.refused(client)
    assert (refused.status, refused.body) == (401, b"who is it")
    assert refused.headers["Content-Type"] == "text/plain"
    assert refused.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert refused.headers.getall("Content-Length") == ["9"]
    assert await call.receive() == GONE
    with pytest.raises(RuntimeError, match=r"after sending 'websocket.close' or response already completed"):
        await call.send(ACCEPT)


async def test_a_denial_may_be_a_redirect(scripted):
    app = await scripted()
    raw = await Raw.open(app.url)
    await raw.send(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    call = await app._arrived.get()
    headers = [(b"location", b"/elsewhere")]
    await call.send({"type": "websocket.http.response.start", "status": 307, "headers": headers})
    await call.send({"type": "websocket.http.response.body"})
    response = await raw.response()
    assert (response.status, response["Location"], response.body) == (307, "/elsewhere", b"")
    raw.close()


async def test_a_denial_is_bounded(scripted):
    app = await scripted(max_backlog=1000)
    call, client = await app.asked()
    await call.send({"type": "websocket.http.response.start", "status": 400, "headers": []})
    with pytest.raises(ValueError, match="has over 1,000 bytes, which is max_backlog"):
        await call.send({"type": "websocket.http.response.body", "body": bytes(1001)})
    call.returns()
    assert (await app.refused(client)).status == 500


@pytest.mark.parametrize("error", [None, ZeroDivisionError("oh")])
async def test_an_application_that_ends_without_an_answer_is_500(scripted, caplog, error):
    app = await scripted()
    call, client = await app.asked()
    call.returns() if error is None else call.raises(error)
    refused = await app.refused(client)
    assert (refused.status, refused.error["message"]) == (500, "internal server error")
    (record,) = records_naming(caplog, refused.error["request_id"])
    assert isinstance(record.exc_info[1], ZeroDivisionError if error else RuntimeError)


async def test_an_application_that_never_accepts_meets_handshake_timeout(scripted):
    app = await scripted(handshake_timeout=0.1)
    call, client = await app.asked()
    assert (await app.refused(client)).status == 503
    assert await call.receive() == GONE
    with pytest.raises(ClientDisconnected):
        await call.send(ACCEPT)


async def test_a_client_that_leaves_during_the_handshake_is_a_disconnect(scripted, any_wire):
    app = await scripted(any_wire[1], **any_wire[0])
    call, client = await app.asked()
    client.cancel()
    assert await call.receive() == GONE
    with pytest.raises(OSError, match="disconnected"):
        await call.send(ACCEPT)


async def test_a_full_server_refuses_whom_the_application_accepts(scripted):
    app = await scripted(max_connections=1)
    one, one_client = await app.asked()
    other, other_client = await app.asked()
    await one.send(ACCEPT)
    with pytest.raises(ClientDisconnected, match="or the server is full"):
        await other.send(ACCEPT)
    assert (await app.refused(other_client)).status == 503
    await one.say("still here")
    assert await (await one_client).receive() == "still here"


async def test_what_is_sent_while_the_101_goes_out_waits_for_it(scripted):
    app = await scripted()
    call, client = await app.asked()
    await asyncio.gather(call.send(ACCEPT), call.say("one"), call.say("two"))
    client = await client
    assert [await client.receive(), await client.receive()] == ["one", "two"]


async def test_an_application_that_returns_while_the_101_goes_out_leaves_no_connection(scripted):
    app = await scripted()
    call, client = await app.asked()
    accepting = asyncio.create_task(call.send(ACCEPT))
    call.returns()
    await accepting
    assert await (await client).closed() == (1011, "the application returned")


# -- the end


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, (1000, "")),
        ({"code": 4001, "reason": "out"}, (4001, "out")),
        ({"code": None, "reason": None}, (1000, "")),
    ],
)
async def test_the_application_closes_with_a_code_and_a_reason(scripted, message, expected):
    app = await scripted()
    call, client = await app.open()
    await call.say("last")
    await call.send({"type": "websocket.close", **message})
    assert await client.receive() == "last"
    assert await client.closed() == expected
    assert (await call.receive())["code"] == expected[0]
    for late in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
        with pytest.raises(RuntimeError, match=r"after sending 'websocket.close'"):
            await call.send(late)


@pytest.mark.parametrize("code", [999, 1005, 5000, "1000"])
async def test_a_code_that_cannot_be_sent_is_told_to_the_application(scripted, code):
    app = await scripted()
    call, client = await app.open()
    with pytest.raises(ValueError, match="cannot be sent"):
        await call.send({"type": "websocket.close", "code": code})
    await call.say("still here")
    assert await client.receive() == "still here"


@pytest.mark.parametrize("error", [None, ZeroDivisionError("oh")])
async def test_an_application_that_ends_closes_with_1011_and_others_stay(scripted, caplog, error):
    app = await scripted()
    one, one_client = await app.open()
    other, other_client = await app.open()
    one.returns() if error is None else one.raises(error)
    code, reason = await one_client.closed()
    assert (code, reason) == (1011, "the application returned" if error is None else "internal error")
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[1] for record in logged] == ([] if error is None else [error])
    await other.say("unharmed")
    assert await other_client.receive() == "unharmed"


async def test_sending_to_a_client_that_went_is_an_oserror_and_no_error_of_the_application(scripted, caplog):
    app = await scripted()
    call, client = await app.open()
    await client.close()
    await call.receive()
    for late in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
        with pytest.raises(OSError, match="the client has disconnected") as raised:
            await call.send(late)
    call.raises(raised.value)
    await eventually(lambda: not app.server._runner.tasks)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("end", ["no code", "reset", "violation"])
async def test_how_a_client_went_is_told(scripted, end):
    app = await scripted()
    raw = await Raw.open(app.url)
    upgrading = asyncio.create_task(raw.upgrade("/"))
    call = await app._arrived.get()
    await call.receive()
    await call.send(ACCEPT)
    await upgrading
    if end == "reset":
        raw.reset()
    else:
        await raw.send(close_frame(None) if end == "no code" else frame(TEXT, b"\xff"))
    expected = 1005 if end == "no code" else 1006
    assert await call.receive() == {"type": "websocket.disconnect", "code": expected, "reason": ""}
    raw.close()


async def test_what_was_sent_before_the_close_is_received_before_the_disconnect(scripted):
    app = await scripted()
    call, client = await app.open()
    for number in range(10):
        await client.send(str(number))
    closing = asyncio.create_task(client.close(4000))
    assert [(await call.receive())["text"] for _ in range(10)] == [str(number) for number in range(10)]
    assert (await call.receive())["code"] == 4000
    await closing


async def test_a_stop_is_a_disconnect_and_the_task_may_finish(scripted):
    app = await scripted(close_timeout=TIMEOUT)
    call, client = await app.open()
    stopping = asyncio.create_task(app.server.stop())
    assert await client.closed() == (1001, "server is stopping")
    assert (await call.receive())["code"] == 1001
    assert not stopping.done()
    call.returns()
    await stopping
    assert not call.was_cancelled


async def test_a_task_that_does_not_end_is_cancelled_by_the_stop(scripted):
    app = await scripted(close_timeout=0.1)
    call, client = await app.open()
    await app.server.stop()
    assert call.was_cancelled
    assert await client.closed() == (1001, "server is stopping")


# -- how much is kept


async def test_a_client_is_not_read_while_64_messages_wait_for_the_application(scripted):
    app = await scripted(ping_interval=0)
    raw = await Raw.open(app.url)
    upgrading = asyncio.create_task(raw.upgrade("/"))
    call = await app._arrived.get()
    await call.receive()
    await call.send(ACCEPT)
    await upgrading
    for number in range(200):
        await raw.send(frame(TEXT, b"%d" % number))
    ws = next(iter(app.server.asgi.connections.values()))
    await eventually(lambda: ws._figures()[0] >= 64)
    for _ in range(20):
        await asyncio.sleep(0)
    assert ws._figures()[0] <= 70
    assert [(await call.receive())["text"] for _ in range(200)] == [str(number) for number in range(200)]
    raw.close()


async def test_a_receive_that_is_cancelled_loses_nothing(scripted):
    app = await scripted()
    call, client = await app.open()
    for number in range(20):
        receiving = asyncio.create_task(call.receive())
        await asyncio.sleep(0)
        await client.send(str(number))
        if number % 2:
            await eventually(lambda number=number: app.server.asgi.stats["messages_received"] > number)
        receiving.cancel()
        got = await asyncio.gather(receiving, return_exceptions=True)
        if isinstance(got[0], asyncio.CancelledError):
            got = [await call.receive()]
        assert got[0]["text"] == str(number)


async def test_two_tasks_may_receive(scripted):
    app = await scripted()
    call, client = await app.open()
    receiving = [asyncio.create_task(call.receive()) for _ in range(2)]
    await asyncio.sleep(0)
    await client.send("one")
    await client.send("two")
    assert {(await each)["text"] for each in receiving} == {"one", "two"}


async def test_send_waits_while_a_client_does_not_read(scripted):
    app = await scripted(max_backlog=1 << 20)
    raw = await Raw.open(app.url, receive_buffer=4096)
    upgrading = asyncio.create_task(raw.upgrade("/"))
    call = await app._arrived.get()
    await call.receive()
    await call.send(ACCEPT)
    await upgrading
    sent = 0

    async def send():
        nonlocal sent
        while sent < 2000:
            await call.send({"type": "websocket.send", "bytes": bytes(10_000)})
            sent += 1

    sending = [asyncio.create_task(send()) for _ in range(3)]
    ws = next(iter(app.server.asgi.connections.values()))
    conversation = call.scope["extensions"]["fastws"]["conversation"]
    await eventually(lambda: len(conversation._senders) == 3 and ws.pending and sent > 50)
    assert ws.pending <= 64 * 1024 + 3 * 10_100
    assert ws.is_open
    before = sent
    while sent < before + 200:
        await raw.frame()
    assert ws.pending <= 64 * 1024 + 3 * 10_100
    raw.reset()
    ended = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(error) for error in ended] == [ClientDisconnected] * 3
    assert app.server.asgi.stats["closed_slow"] == 0
    raw.close()


# -- messages that make no sense: what is told is as clear as in uvicorn


@pytest.mark.parametrize(
    ("message", "error", "match"),
    [
        ({}, KeyError, "type"),
        ({"type": "websocket.send", "text": "early"}, RuntimeError, "Expected ASGI message 'websocket.accept'"),
        ({"type": "websocket.nonsense"}, RuntimeError, "but got 'websocket.nonsense'"),
        ({"type": "http.response.start", "status": 200}, RuntimeError, "but got 'http.response.start'"),
        ({"type": "websocket.http.response.start"}, KeyError, "status"),
        ({"type": "websocket.http.response.start", "status": 101}, RuntimeError, "Invalid HTTP status code 101"),
        ({"type": "websocket.http.response.start", "status": "x"}, RuntimeError, "Invalid HTTP status code 'x'"),
        ({"type": "websocket.http.response.body"}, RuntimeError, "but got 'websocket.http.response.body'"),
        ({"type": "websocket.subscribe", "topic": "x"}, RuntimeError, "but got 'websocket.subscribe'"),
    ],
)
async def test_nonsense_during_the_handshake(scripted, message, error, match):
    app = await scripted()
    call, client = await app.asked()
    with pytest.raises(error, match=match):
        await call.send(message)
    await call.send(ACCEPT)
    await call.say("fine")
    assert await (await client).receive() == "fine"


@pytest.mark.parametrize(
    ("message", "error", "match"),
    [
        ({}, KeyError, "type"),
        (ACCEPT, RuntimeError, "Expected ASGI message 'websocket.send' or 'websocket.close', but got 'websocket.acc"),
        ({"type": "websocket.http.response.start", "status": 400}, RuntimeError, "but got 'websocket.http.response"),
        ({"type": "websocket.nonsense"}, RuntimeError, "but got 'websocket.nonsense'"),
        ({"type": None}, RuntimeError, "but got None"),
        ({"type": "websocket.send"}, TypeError, "neither 'text' nor 'bytes'"),
        ({"type": "websocket.send", "text": None, "bytes": None}, TypeError, "neither 'text' nor 'bytes'"),
        ({"type": "websocket.send", "text": b"x"}, TypeError, "'text' is bytes, not str"),
        ({"type": "websocket.send", "text": 5}, TypeError, "'text' is int, not str"),
        ({"type": "websocket.send", "bytes": "x"}, TypeError, "must be bytes, not str"),
        ({"type": "websocket.send", "text": "\ud800"}, UnicodeEncodeError, "surrogates not allowed"),
        ({"type": "websocket.close", "reason": "x" * 124}, ValueError, "at most 123 bytes"),
        ({"type": "websocket.subscribe"}, KeyError, "topic"),
        ({"type": "websocket.subscribe", "topic": 5}, TypeError, "'topic' of ASGI message 'websocket.subscribe'"),
        ({"type": "websocket.unsubscribe", "topic": b"x"}, TypeError, "must be a str, not bytes"),
        ({"type": "websocket.publish", "topic": "x"}, TypeError, "neither 'text' nor 'bytes'"),
        ({"type": "websocket.publish", "text": "x"}, KeyError, "topic"),
    ],
)
async def test_nonsense_on_an_open_connection(scripted, message, error, match):
    app = await scripted()
    call, client = await app.open()
    with pytest.raises(error, match=match):
        await call.send(message)
    await call.say("fine")
    assert await client.receive() == "fine"


async def test_of_bytes_and_text_the_bytes_count_as_in_uvicorn(scripted):
    app = await scripted()
    call, client = await app.open()
    await call.send({"type": "websocket.send", "bytes": bytearray(b"x"), "text": "y"})
    assert await client.receive() == b"x"


async def test_a_denial_takes_only_its_body(scripted):
    app = await scripted()
    call, client = await app.asked()
    await call.send({"type": "websocket.http.response.start", "status": 400, "headers": [(b"x", b"y")]})
    for message in (ACCEPT, {"type": "websocket.close"}):
        with pytest.raises(RuntimeError, match=r"Expected ASGI message 'websocket.http.response.body'"):
            await call.send(message)
    await call.send({"type": "websocket.http.response.body", "body": b"no"})
    assert (await app.refused(client)).body == b"no"
