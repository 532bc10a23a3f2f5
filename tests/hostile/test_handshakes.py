"""Hostile handshakes: they get the answer in the corpus, and nobody else is affected."""

import asyncio
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..lib.raw import KEY, TEXT, accept_of, close_frame, frame, request
from ..lib.support import Echo, Recorder, eventually, nothing_left
from . import MAX_HEADER_SIZE, PATH
from .handshakes import ACCEPTED, NO_WEBSOCKET, NOTHING_HERE, REFUSED, STALLED
from .strangers import splits, stranger

PLAIN_FIELDS = ["Content-Type", "Content-Length", "Connection"]
MORE_FIELDS = {405: ["Allow"], 426: ["Sec-WebSocket-Version", "Upgrade"]}


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
    """Nothing can be smuggled past one parser to the other."""
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

    site = await serve(recorder := Recorder(), PATH, max_header_size=MAX_HEADER_SIZE, http=app, http_websockets=False)
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


# After a plain request, empty lines and a second blank are skipped (RFC 9112 2.2, 3) and not counted.
READ_PAST = {"nothing but line ends", "a blank line first", "two blanks before the target", "one byte too many"}


@pytest.mark.usefixtures("wire")
async def test_what_is_refused_is_refused_after_a_plain_request_too(serve):
    """Here uvicorn's parser comes first, which is less specific about errors."""
    site = await serve(recorder := Recorder(), PATH, max_header_size=MAX_HEADER_SIZE, http=plain, http_websockets=False)
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
    site = await serve(handshake_timeout=0.2)
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
        # The damaged rest may be the start of a frame, so there may be no echo.
        assert b"Sec-WebSocket-Accept: " in answer
    else:
        assert answer == b"" or (answer.startswith(b"HTTP/1.1 4") and b'{"error":{' in answer)


async def test_the_same_key_twice_is_two_connections(site):
    async with stranger(site, "/ws/cars") as one, stranger(site, "/ws/cars") as other:
        await one.send(frame(TEXT, KEY.encode()))
        await other.send(frame(TEXT, b"other"))
        assert (await one.text(), await other.text()) == (KEY, "other")
