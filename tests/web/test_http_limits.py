"""What a connection may do while the HTTP application has it: no more than one that the engine has."""

import asyncio
import contextlib
import logging

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fastws.testing import Refused

from ..lib.raw import CLOSE, TEXT, Streams, close_frame, frame, request, send_and_reset
from ..lib.support import Echo, Recorder, counted, eventually, nothing_left

TIMEOUT = 5.0
MIB = 1 << 20
MAX = 4096  # bytes of a head
GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = b"GET /big HTTP/1.1\r\nHost: x\r\n%b\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = request("/ws/cars")
HI, SAYS_HI = frame(TEXT, b"hi"), frame(TEXT, b"hi", mask=None)


class App:
    """An application, and what its handlers met."""

    def __init__(self):
        self.waiting, self.release, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.headers = {}
        self.asgi = Starlette(
            routes=[
                Route("/hello", self.hello),
                Route("/echo", self.echo, methods=["POST"]),
                Route("/wait", self.wait, methods=["GET", "POST"]),
                Route("/listen", self.listen),
                Route("/big", self.big),
                Route("/headers", self.say_headers, methods=["POST"]),
            ]
        )

    async def hello(self, request):
        return PlainTextResponse(f"hello {request.client.host} by {request.url.scheme}")

    async def echo(self, request):
        return Response(await request.body())

    async def wait(self, request):
        self.waiting.set()
        await self.release.wait()
        return PlainTextResponse("done", headers=self.headers)

    async def listen(self, request):
        """Waits for the peer to go, as event streams do."""
        self.waiting.set()
        await request.receive()  # the body
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()
        return Response()

    async def big(self, request):
        return Response(bytes(32 * MIB))

    async def say_headers(self, request):
        await request.body()
        return JSONResponse(sorted(request.headers))


class Peer(Streams):
    """Reads HTTP's answers."""

    async def answer(self):
        """Status and body of the next response."""
        head = await self.until(b"\r\n\r\n")
        fields = dict(line.lower().split(": ") for line in head.decode().split("\r\n")[1:-2])
        async with asyncio.timeout(TIMEOUT):
            body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        return int(head.split()[1]), body.decode()

    async def end(self):
        """All that still comes, up to the server's end."""
        with contextlib.suppress(ConnectionResetError):
            return await self.rest()


@pytest.fixture
async def app():
    return App()


@pytest.fixture
async def open_site(serve, any_wire, app):
    """`await open_site(listener, **options)`: a server with the application; no place is lost in the end."""
    sites = []

    async def start(listener=None, **options):
        options = {"max_connections_per_ip": 100, "max_header_size": MAX, **any_wire[0], **options}
        sites.append(await serve(listener or Echo(), http=app.asgi, **options))
        return sites[-1]

    yield start
    for site in sites:
        await eventually(lambda site=site: nothing_left(site) and site.server._admission.http.connection_count == 0)


@pytest.fixture
async def dial_http(open_site, any_wire):
    """`await dial_http(site)` is a Peer that leaves after the test; `kept_alive` has had one request answered."""
    peers = []

    async def call(site, kept_alive=True, **options):
        peer = Peer(*await asyncio.open_connection("127.0.0.1", site.server.port, **any_wire[1], **options))
        peers.append(peer)
        if kept_alive:
            await peer.send(GET)
            assert (await peer.answer())[0] == 200
        return peer

    yield call
    for peer in peers:
        peer.leave()


# -- time


@pytest.mark.parametrize("part", [b"G", GET[:20], GET[:-1], WAIT[:-2] + b"X-A"])
async def test_half_a_head_is_held_for_handshake_timeout_and_no_longer(open_site, dial_http, part):
    site = await open_site(handshake_timeout=0.2, close_timeout=0.2)
    peer = await dial_http(site)
    await peer.send(part)
    status, body = await peer.answer()
    assert (status, "no complete request came within handshake_timeout" in body) == (408, True)
    assert await peer.end() == b""
    await eventually(lambda: counted(site) == 0)


async def test_drops_of_a_head_buy_no_time(open_site, dial_http):
    site = await open_site(handshake_timeout=0.3)
    peer = await dial_http(site)

    async def drip():
        await peer.send(b"GET /hello HTTP/1.1\r\n")
        while True:
            await peer.send(b"X-A: b\r\n")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert (await peer.answer())[0] == 408
    dripping.cancel()


async def test_a_connection_without_a_next_request_is_closed_without_a_word(open_site, dial_http):
    site = await open_site(handshake_timeout=0.2)
    peer = await dial_http(site)
    assert await peer.end() == b""
    blank = await dial_http(site)
    await blank.send(b"\r\n")  # before a request line these do not matter (RFC 9112 2.2)
    assert await blank.end() == b""


async def test_the_rest_of_a_body_that_was_answered_already_has_handshake_timeout(open_site, dial_http):
    site = await open_site(handshake_timeout=0.2)
    peer = await dial_http(site)
    await peer.send(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
    assert (await peer.answer())[0] == 405
    assert await peer.end() == b""


async def test_a_handler_takes_the_time_that_it_takes(open_site, dial_http, app):
    site = await open_site(handshake_timeout=0.05, idle_timeout=0.1)
    peer = await dial_http(site, kept_alive=False)
    await peer.send(WAIT)
    await asyncio.sleep(0.5)
    app.release.set()
    assert await peer.answer() == (200, "done")


async def test_a_body_that_stalls_is_waited_for_as_long_as_idle_timeout(open_site, dial_http, caplog):
    caplog.set_level(logging.INFO, logger="fastws.http")
    site = await open_site(idle_timeout=0.2)
    peer = await dial_http(site)
    await peer.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
    assert not await peer.end()
    assert "an HTTP connection is dropped: nothing comes of its request's body" in caplog.text
    await eventually(lambda: counted(site) == 0)


async def test_a_body_that_nobody_asked_for_yet_is_not_missed(open_site, dial_http, app):
    site = await open_site(idle_timeout=0.1)
    peer = await dial_http(site)
    await peer.send(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
    await app.waiting.wait()
    await asyncio.sleep(0.4)
    app.release.set()
    assert await peer.answer() == (200, "done")


@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"], ids=["kept alive", "to be closed"])
async def test_an_answer_that_is_not_read_is_kept_for_idle_timeout(open_site, dial_http, caplog, fields):
    caplog.set_level(logging.INFO, logger="fastws.http")
    # Of a write this large uvloop's TLS tells nothing but that the answer is over.
    site = await open_site(idle_timeout=0.4, handshake_timeout=0.4)
    peer = await dial_http(site, limit=1024)
    await peer.send(BIG % fields)
    await eventually(lambda: counted(site) == 0)
    assert "an HTTP connection is dropped: it does not read its answer" in caplog.text


async def test_whoever_reads_slowly_gets_the_whole_answer(open_site, dial_http):
    site = await open_site(idle_timeout=1.5, handshake_timeout=20)
    peer = await dial_http(site, kept_alive=False, limit=1024)
    await peer.send(BIG % b"")
    await peer.until(b"\r\n\r\n")
    for _ in range(20):
        async with asyncio.timeout(TIMEOUT):
            await peer.reader.readexactly(MIB)
        await asyncio.sleep(0.1)
    async with asyncio.timeout(TIMEOUT):
        await peer.reader.readexactly(12 * MIB)


async def test_without_idle_timeout_nothing_is_dropped(open_site, dial_http):
    site = await open_site(idle_timeout=0, handshake_timeout=0.1)
    peer = await dial_http(site, kept_alive=False)
    await peer.send(CHUNKED)
    await asyncio.sleep(0.4)
    await peer.send(b"1\r\nx\r\n0\r\n\r\n")
    assert await peer.answer() == (200, "x")


# -- size


def head_of(size, end=b"\r\n\r\n"):
    start = b"GET /hello HTTP/1.1\r\nHost: x\r\nX-A: "
    return start + b"a" * (size - len(start) - len(end)) + end


async def test_max_header_size_holds_for_each_head_to_the_blank_before_a_value(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site)
    for _ in range(3):
        await peer.send(head_of(MAX))
        assert (await peer.answer())[0] == 200
    await peer.send(head_of(MAX + 3))
    status, body = await peer.answer()
    assert (status, f"the request's head is over {MAX} bytes" in body) == (431, True)
    assert await peer.end() == b""


@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"a" * 8, b"\r\n" * 4], ids=["fields", "a field", "blank lines"])
async def test_a_head_without_end_is_refused_and_the_neighbours_are_served(open_site, dial_http, join, any_wire, piece):
    site = await open_site()
    neighbour = await join(f"{site.url}/ws/cars", **any_wire[1])
    peer = await dial_http(site)
    peer.writer.write(b"" if piece == b"\r\n" * 4 else b"GET /hello HTTP/1.1\r\nHost: x\r\nX-B: ")
    peer.writer.write(piece * (4 * MIB))  # 32 MiB
    await neighbour.send("hi")
    assert await neighbour.receive() == "hi"
    assert (await peer.answer())[0] == 431
    assert await peer.end() == b""


@pytest.mark.parametrize(
    "piece",
    [b"1;" + b"a" * (2 * MAX), b"0" * (2 * MAX) + b"1", b"0\r\n" + b"X-A: b\r\n" * MAX],
    ids=["an extension", "a size", "trailers"],
)
async def test_a_body_has_no_endless_decoration(open_site, dial_http, piece):
    site = await open_site()
    peer = await dial_http(site)
    await peer.send(CHUNKED + b"3\r\none\r\n", piece)
    status, body = await peer.answer()
    assert (status, '"code":400' in body) == (400, True)
    assert await peer.end() == b""
    await eventually(lambda: not site.server._admission.http._state.tasks)  # and the application does not wait for ever


async def test_trailers_are_no_header_fields(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site)
    await peer.send(CHUNKED.replace(b"echo", b"headers"), b"0\r\nX-Admin: yes\r\n\r\n")
    assert await peer.answer() == (200, '["host","transfer-encoding"]')


# -- places


async def test_an_address_holds_its_places_while_it_is_kept_alive(open_site, dial_http):
    site = await open_site(max_connections_per_ip=3)
    peers = [await dial_http(site) for _ in range(3)]
    for _ in range(3):
        over = await dial_http(site, kept_alive=False)
        await over.send(GET)
        assert (await over.answer())[0] == 503
    peers[0].leave()
    await eventually(lambda: site.server._admission.http.connection_count == 2)
    await dial_http(site)
    for peer in peers:
        peer.leave()


async def test_an_upgrade_takes_the_place_along(open_site, dial_http):
    site = await open_site(max_connections_per_ip=1, max_connections=1)
    peer = await dial_http(site)
    await peer.send(UPGRADE, HI)
    assert (await peer.answer())[0] == 101
    await peer.until(SAYS_HI)
    assert (counted(site), site.server._admission.http.connection_count) == (1, 0)
    over = await dial_http(site, kept_alive=False)
    await over.send(GET)
    assert (await over.answer())[0] == 503
    peer.leave()
    await eventually(lambda: counted(site) == 0)


async def test_max_connections_counts_what_http_has(open_site, dial_http, join, any_wire):
    site = await open_site(max_connections=2)
    client = await join(f"{site.url}/ws/cars", **any_wire[1])
    peer = await dial_http(site)
    with pytest.raises(Refused) as refused:
        await join(f"{site.url}/ws/cars", **any_wire[1])
    assert refused.value.status == 503
    over = await dial_http(site, kept_alive=False)
    await over.send(GET)
    head = await over.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: " in head
    peer.leave()
    await eventually(lambda: site.server._admission.http.connection_count == 0)
    await dial_http(site)
    await client.close()


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_whoever_resets_gives_the_place_back(open_site, app, turns):
    site = await open_site()
    app.release.set()
    if site.server.options.ssl is not None:
        return
    for data in (GET, WAIT, GET + b"GET", GET + UPGRADE):
        await send_and_reset(site.url, data, times=20, turns=turns)
    await eventually(lambda: counted(site) == 0)


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
        return  # of a write this large uvloop's TLS tells nothing
    for _ in range(20):
        site.manager.broadcast("cars", bytes(100_000))
        await asyncio.sleep(0)
    await eventually(lambda: site.manager.connection_count == 0)  # as the overflow policy says


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
        (request("/ws/cars", version="HTTP/1.0"), 400, "a WebSocket needs HTTP/1.1"),
        (
            request("/ws/cars", without=["Connection"]),
            400,
            "the Connection header field does not say Upgrade",
        ),
        (request("/ws/cars", method="POST"), 405, "a WebSocket is asked for with GET"),
        (request("/nowhere"), 404, "there is no endpoint at this path"),
    ],
)
async def test_an_upgrade_is_refused_alike_on_a_fresh_and_on_a_kept_alive_connection(
    open_site, dial_http, handshake, status, message
):
    site = await open_site()
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
