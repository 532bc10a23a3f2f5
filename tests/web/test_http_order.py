"""Answers stay in order, and an upgrade waits for them, by the same rules as on a new connection."""

import asyncio

import pytest

from ..lib.http import BIG, GET, HI, MIB, SAYS_HI, UPGRADE, WAIT
from ..lib.raw import CLOSE, TEXT, TIMEOUT, close_frame, frame, request
from ..lib.support import Recorder, eventually

# -- order


@pytest.mark.parametrize(
    "segments", [(WAIT + UPGRADE + HI,), (WAIT, UPGRADE, HI), (WAIT + UPGRADE[:50], UPGRADE[50:] + HI)]
)
@pytest.mark.parametrize("kept_alive", [False, True])
async def test_an_upgrade_waits_for_the_answers_before_it(open_site, dial_http, app, segments, kept_alive):
    site = await open_site()
    peer = await dial_http(site, kept_alive=kept_alive)
    await peer.send(*segments)
    await app.waiting.wait()
    assert site.manager.connection_count == 0
    app.release.set()
    assert await peer.answer() == (200, "done")
    assert (await peer.answer())[0] == 101
    await peer.until(SAYS_HI)
    await peer.send(HI + close_frame())
    await peer.until(SAYS_HI + frame(CLOSE, b"\x03\xe8", mask=None))


@pytest.mark.parametrize("before", [GET, GET * 2])
async def test_an_upgrade_in_one_segment_with_quick_requests_comes_last(open_site, dial_http, before):
    site = await open_site()
    peer = await dial_http(site, kept_alive=False)
    await peer.send(before + UPGRADE + HI)
    for _ in range(before.count(b"GET")):
        assert (await peer.answer())[0] == 200
    assert (await peer.answer())[0] == 101
    await peer.until(SAYS_HI)


async def test_an_answer_that_is_not_read_holds_the_websocket_after_it_up_too(open_site, dial_http, any_wire):
    site = await open_site(max_backlog=MIB)
    peer = await dial_http(site, kept_alive=False, limit=1024)
    await peer.send(BIG % b"" + UPGRADE)
    await eventually(lambda: site.manager.connection_count == 1)
    if any_wire[0]:
        return  # for a write this large, uvloop's TLS reports nothing
    for _ in range(20):
        site.manager.broadcast("cars", bytes(100_000))
        await asyncio.sleep(0)
    await eventually(lambda: site.manager.connection_count == 0)  # by the overflow policy


async def test_an_upgrade_after_a_large_answer_works_once_that_is_read(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site, kept_alive=False)
    await peer.send(BIG % b"" + UPGRADE + HI)
    assert await peer.answer() == (200, "\0" * (32 * MIB))
    assert (await peer.answer())[0] == 101
    await peer.until(SAYS_HI)


async def test_an_upgrade_after_an_answer_that_closes_never_comes(open_site, dial_http, app):
    recorder = Recorder()
    site = await open_site(recorder)
    app.headers = {"Connection": "close"}
    app.release.set()
    peer = await dial_http(site)
    await peer.send(WAIT + UPGRADE)
    assert await peer.answer() == (200, "done")
    assert not await peer.end()
    app.release.clear()
    closing = await dial_http(site)
    await closing.send(WAIT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + UPGRADE, UPGRADE)
    app.release.set()
    assert await closing.answer() == (200, "done")
    assert not await closing.end()
    assert recorder.calls == []


async def test_frames_in_the_segment_of_an_upgrade_arrive(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site)
    await peer.send(UPGRADE + HI * 3)
    assert (await peer.answer())[0] == 101
    await peer.until(SAYS_HI * 3)


async def test_many_frames_after_an_upgrade_that_waits_arrive_whole(open_site, dial_http, app):
    site = await open_site()
    peer = await dial_http(site)
    message = bytes(100_000)
    frames = frame(TEXT, message) * 20
    await peer.send(WAIT)
    peer.writer.write(UPGRADE + frames)
    await app.waiting.wait()
    await asyncio.sleep(0.1)
    app.release.set()
    assert await peer.answer() == (200, "done")
    assert (await peer.answer())[0] == 101
    async with asyncio.timeout(TIMEOUT):
        expected = frame(TEXT, message, mask=None) * 20
        assert await peer.reader.readexactly(len(expected)) == expected


async def test_many_requests_in_one_segment_are_answered_in_order(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site)
    post = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n%04d"
    await peer.send(b"".join(post % number for number in range(1000)))
    assert [(await peer.answer())[1] for _ in range(1000)] == [f"{number:04d}" for number in range(1000)]


async def test_rubbish_after_a_request_is_refused_after_its_answer(open_site, dial_http, app):
    site = await open_site()
    peer = await dial_http(site)
    await peer.send(WAIT + b"rubbish\x00\r\n\r\n")
    await app.waiting.wait()
    app.release.set()
    assert await peer.answer() == (200, "done")
    assert (await peer.answer())[0] == 400
    assert await peer.end() == b""


async def test_a_handler_hears_that_its_peer_went_even_if_another_request_waits(open_site, dial_http, app):
    site = await open_site()
    peer = await dial_http(site)
    await peer.send(b"GET /listen HTTP/1.1\r\nHost: x\r\n\r\n")
    await app.waiting.wait()
    await peer.send(GET + UPGRADE)
    peer.leave()
    async with asyncio.timeout(TIMEOUT):
        await app.gone.wait()


# -- one rule for both


@pytest.mark.parametrize(
    ("handshake", "status", "message"),
    [
        (request("/ws/cars", version="HTTP/1.0"), 400, "WebSocket handshakes must use HTTP/1.1"),
        (
            request("/ws/cars", without=["Connection"]),
            400,
            "the Connection header field must contain Upgrade",
        ),
        (request("/ws/cars", method="POST"), 405, "WebSocket handshakes must use GET"),
        (request("/nowhere"), 404, "no WebSocket endpoint at this path"),
    ],
)
async def test_an_upgrade_is_refused_alike_on_a_fresh_and_on_a_kept_alive_connection(
    open_site, dial_http, handshake, status, message
):
    site = await open_site(http_websockets=False)
    for kept_alive in (False, True):
        peer = await dial_http(site, kept_alive)
        await peer.send(handshake)
        answered, body = await peer.answer()
        assert (answered, message in body) == (status, True)


async def test_another_protocols_upgrade_is_a_plain_request(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site)
    h2c = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    await peer.send(h2c + GET)
    assert [(await peer.answer())[0] for _ in range(2)] == [200, 200]
    await peer.send(h2c.replace(b"GET /hello", b"POST /echo").replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"))
    assert (await peer.answer())[0] == 400
    assert await peer.end() == b""


async def test_nobody_is_believed_to_speak_for_somebody_else(open_site, dial_http, any_wire):
    site = await open_site(recorder := Recorder())
    lies = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "gopher"), ("Forwarded", "for=192.0.2.1")]
    fields = "".join(f"{name}: {value}\r\n" for name, value in lies).encode()
    peer = await dial_http(site, kept_alive=False)
    for _ in range(2):
        await peer.send(GET[:-2] + fields + b"\r\n")
        assert await peer.answer() == (200, f"hello 127.0.0.1 by {'https' if any_wire[0] else 'http'}")
    fresh = await dial_http(site, kept_alive=False)
    for client in (peer, fresh):
        await client.send(request("/ws/cars", extra=lies))
        assert (await client.answer())[0] == 101
    await recorder.until("on_open", 2)
    assert [ws.remote_address[0] for ws in recorder.sockets] == ["127.0.0.1"] * 2
    for client in (peer, fresh):
        client.leave()
