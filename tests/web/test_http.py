"""HTTP on the server's own port: the adapter on a minimal accept loop, then in a real server."""

import asyncio
import contextlib
import socket
import sys
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from fastws import ConfigurationError, FastWSError, Server
from fastws.config import Options
from fastws.http import HTTPApp

from ..lib.raw import TEXT, TIMEOUT, Streams, close_frame, frame
from ..lib.support import Echo

MIB = 1 << 20
KEPT_ALIVE_GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSING_GET = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def hello(request):
    return PlainTextResponse(f"hello {request.client.host}")


async def echo(request):
    return Response(await request.body())


async def stream(request):
    async def parts():
        for number in range(3):
            yield f"part {number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(parts())


async def wait(request):
    request.app.state.waiting.set()
    await request.app.state.release.wait()
    return PlainTextResponse("done")


def application(**options):
    routes = [
        Route("/hello", hello),
        Route("/echo", echo, methods=["POST"]),
        Route("/stream", stream),
        Route("/wait", wait, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes, **options)
    app.state.waiting = asyncio.Event()
    app.state.release = asyncio.Event()
    return app


def refusal(address, status, message):
    return b"HTTP/1.1 %d Refused\r\nConnection: close\r\n\r\n%b" % (status, message.encode())


class Site:
    """An HTTPApp in a minimal server: accept, read once, hand over."""

    def __init__(self, app, **options):
        self.http = HTTPApp(app, Options(), refusal=refusal, **options)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def accept(self):
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self.listener)
            self.http.adopt(sock, await loop.sock_recv(sock, MIB), lambda: None)


@pytest.fixture
async def call():
    """`await call(site)` is a Streams that closes after the test."""
    wires = []

    async def connect(site):
        wires.append(Streams(*await asyncio.open_connection("127.0.0.1", site.port)))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.leave()


@contextlib.asynccontextmanager
async def serving(app, **options):
    site = Site(app, **options)
    await site.http.startup()
    accepting = asyncio.create_task(site.accept())
    try:
        yield site
    finally:
        accepting.cancel()
        site.listener.close()
        await site.http.shutdown(TIMEOUT)


@pytest.fixture
async def site():
    async with serving(application()) as site:
        yield site


@pytest.fixture
async def client():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT)) as session:
        yield session


async def test_a_request_is_answered_with_the_date_and_the_peers_address(site, client):
    async with client.get(f"{site.url}/hello") as response:
        assert (response.status, await response.text()) == (200, "hello 127.0.0.1")
        assert parsedate_to_datetime(response.headers["Date"]).tzinfo is not None


async def test_a_connection_is_kept_alive(site, call):
    wire = await call(site)
    for _ in range(3):
        await wire.send(KEPT_ALIVE_GET)
        assert (await wire.until(b"hello 127.0.0.1")).startswith(b"HTTP/1.1 200")
    assert len(site.http._state.connections) == 1


async def test_a_head_split_over_packets_is_answered(site, call):
    wire = await call(site)
    await wire.send(CLOSING_GET[:9], CLOSING_GET[9:30], CLOSING_GET[30:])
    assert (await wire.rest()).endswith(b"hello 127.0.0.1")


async def test_a_body_split_over_packets_arrives_whole_and_in_order(site, call):
    wire = await call(site)
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"
    await wire.send(head + b"on", b"e two", b" thre")
    assert (await wire.rest()).endswith(b"one two thre")


async def test_a_chunked_body_arrives(site, client):
    async def parts():
        yield b"one "
        yield b"two"

    async with client.post(f"{site.url}/echo", data=parts()) as response:
        assert await response.read() == b"one two"


async def test_an_upload_of_a_mebibyte_arrives_and_returns_unchanged(site, client):
    body = bytes(range(256)) * (MIB // 256)
    async with client.post(f"{site.url}/echo", data=body) as response:
        assert await response.read() == body


async def test_an_upload_that_nobody_reads_yet_is_held_back_at_the_sender(call):
    app = application()
    async with serving(app) as site:
        wire = await call(site)
        size = 64 * MIB
        wire.writer.write(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await app.state.waiting.wait()
        await asyncio.sleep(0.1)
        assert wire.writer.transport.get_write_buffer_size() > size // 2
        wire.leave()
        app.state.release.set()


async def test_pipelined_requests_are_answered_in_order(site, call):
    wire = await call(site)
    echo = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n%b"
    await wire.send(echo % b"one" + echo % b"two" + CLOSING_GET)
    answers = await wire.rest()
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.index(b"one") < answers.index(b"two") < answers.index(b"hello")


async def test_a_response_streams(site, client):
    async with client.get(f"{site.url}/stream") as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert await response.text() == "part 0\npart 1\npart 2\n"


async def test_rubbish_is_a_400_and_the_connection_closes(site, call):
    wire = await call(site)
    await wire.send(b"rubbish\x00\r\n\r\n")
    assert (await wire.rest()).startswith(b"HTTP/1.1 400")


async def test_a_peer_that_is_gone_before_it_is_adopted_harms_nobody(site, client):
    near, far = socket.socketpair()
    far.close()
    near.setblocking(False)
    released = []
    site.http.adopt(near, CLOSING_GET, lambda: released.append(near))
    async with client.get(f"{site.url}/hello") as response:
        assert response.status == 200
    async with asyncio.timeout(TIMEOUT):
        while near.fileno() != -1 or not released:
            await asyncio.sleep(0.001)
    assert released == [near]


async def test_a_transport_is_adopted_with_what_was_read_from_it(site, client):
    class FirstRead(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            site.http.adopt_transport(self.transport, data, lambda: None)

    server = await asyncio.get_running_loop().create_server(FirstRead, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):  # the second on a kept-alive connection
            async with client.post(f"http://127.0.0.1:{port}/echo", data=b"x" * MIB) as response:
                assert len(await response.read()) == MIB
        await client.close()


async def test_root_path_reaches_the_application(client):
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await PlainTextResponse(scope["root_path"])(scope, receive, send)

    async with serving(app, root_path="/api") as site, client.get(f"{site.url}/x") as response:
        assert await response.text() == "/api"


async def test_the_lifespan_runs_around_the_requests(client):
    events = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        events.append("start")
        yield {"name": "from the lifespan"}
        events.append("stop")

    async def state(request):
        return PlainTextResponse(request.state.name)

    async with serving(Starlette(routes=[Route("/", state)], lifespan=lifespan)) as site:
        assert events == ["start"]
        async with client.get(site.url) as response:
            assert await response.text() == "from the lifespan"
    assert events == ["start", "stop"]


async def test_a_lifespan_that_fails_fails_the_start(caplog):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        raise OSError("no database")
        yield

    http = HTTPApp(Starlette(lifespan=lifespan), Options(), refusal=refusal)
    with pytest.raises(FastWSError, match="failed to start"):
        await http.startup()
    assert "no database" in caplog.text
    await http.shutdown(TIMEOUT)


async def test_shutdown_closes_an_idle_connection_at_once(call):
    async with serving(application()) as site:
        wire = await call(site)
        await wire.send(KEPT_ALIVE_GET)
        await wire.until(b"hello 127.0.0.1")
    assert await wire.rest() == b""


async def test_shutdown_lets_a_running_request_finish(call):
    app = application()
    async with serving(app) as site:
        wire = await call(site)
        await wire.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.state.waiting.wait()
        asyncio.get_running_loop().call_later(0.05, app.state.release.set)
    assert (await wire.rest()).endswith(b"done")


async def test_shutdown_cancels_what_runs_past_its_timeout(caplog, call):
    app = application()
    async with serving(app) as site:
        wire = await call(site)
        await wire.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.state.waiting.wait()
        await site.http.shutdown(0.05)
    assert (await wire.rest()).startswith(b"HTTP/1.1 500")
    assert "cancelled 1 HTTP requests" in caplog.text


async def test_shutdown_does_not_wait_for_a_peer_that_reads_nothing(call, monkeypatch):
    monkeypatch.setattr("fastws.http.CANCEL_GRACE_SECONDS", 0.05)

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await Response(b"x" * 64 * MIB)(scope, receive, send)

    async with serving(app) as site:
        wire = await call(site)
        wire.writer.transport.pause_reading()
        await wire.send(KEPT_ALIVE_GET)
        async with asyncio.timeout(TIMEOUT):
            await site.http.shutdown(0.05)


async def test_an_upgrade_on_a_kept_alive_connection_goes_to_the_websocket_protocol(call):
    class Taken(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.data = transport, b""

        def data_received(self, data):
            self.data += data
            self.transport.write(b"taken:" + data)

    taken = Taken()
    async with serving(application(), websocket=lambda peer: taken) as site:
        wire = await call(site)
        await wire.send(KEPT_ALIVE_GET)
        await wire.until(b"hello 127.0.0.1")
        await wire.send(
            b"GET /ws/chat?x=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await wire.until(b"\r\n\r\n")
        assert taken.data.startswith(b"GET /ws/chat?x=1 HTTP/1.1\r\n")
        assert b"key:dGhlIHNhbXBsZSBub25jZQ==\r\n" in taken.data
        await wire.send(b"frame")
        assert await wire.until(b"frame") == b"taken:frame"
        taken.transport.close()


def test_without_uvicorn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn.config", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fastws-server\[server\]'"):
        HTTPApp(application(), Options(), refusal=refusal)


def test_something_that_is_no_application_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="http='app:app' is not an ASGI application"):
        HTTPApp("app:app", Options(), refusal=refusal)


# -- in a real server


def news(chat_of):
    """An application that broadcasts what is posted to it."""

    async def post(request):
        return PlainTextResponse(str(chat_of().broadcast("news", (await request.body()).decode())))

    return Starlette(routes=[Route("/news", post, methods=["POST"]), Route("/hello", hello), Route("/ws/x", hello)])


async def test_an_application_and_its_sockets_share_a_port_and_a_handler_broadcasts(serve, join, client):
    site = await serve(http=news(lambda: site.manager))
    member = await join(f"{site.url}/ws/news")
    url = site.url.replace("ws://", "http://")
    for number in range(3):  # on one connection, kept alive
        async with client.post(f"{url}/news", data=f"flash {number}") as response:
            assert (response.status, await response.text()) == (200, "1")
        assert await member.receive() == f"flash {number}"


async def test_a_plain_get_of_an_endpoints_path_is_the_applications(serve, client):
    site = await serve(http=news(None))
    async with client.get(f"{site.url.replace('ws', 'http', 1)}/ws/x") as response:
        assert await response.text() == "hello 127.0.0.1"


async def test_the_server_hands_over_every_byte_of_a_body_wherever_it_is_split(serve, call):
    site = await serve(http=application())
    body = bytes(range(256)) * 64
    request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    for split in (1, 20, request.index(body) - 2, request.index(body), request.index(body) + 1, len(request) - 1):
        wire = await call(site.server)
        await wire.send(request[:split], request[split:])
        assert (await wire.rest()).endswith(body)


async def test_uploads_of_a_mebibyte_arrive_side_by_side(serve, client):
    site = await serve(http=application())

    async def upload(number):
        body = bytes([number]) * MIB
        async with client.post(f"{site.url.replace('ws', 'http', 1)}/echo", data=body) as response:
            assert await response.read() == body

    await asyncio.gather(*map(upload, range(8)))


async def test_a_websocket_opens_on_a_connection_that_http_kept_alive(serve, dial):
    site = await serve(Echo(), http=application())
    raw = await dial(site.url)
    await raw.send(KEPT_ALIVE_GET)
    assert (await raw.response()).body == b"hello 127.0.0.1"
    await raw.upgrade("/ws/cars")
    assert site.manager.channels == {"cars": 1}
    await raw.send(frame(TEXT, b"hi"))
    assert await raw.text() == "hi"
    await raw.send(close_frame())
    assert await raw.close_code() == 1000


async def test_without_an_application_the_answer_is_json(serve, client):
    site = await serve(path="/ws/{channel}")
    url = site.url.replace("ws", "http", 1)
    async with client.get(f"{url}/nothing") as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], bool(error["request_id"])) == (404, 404, True)
    async with client.get(f"{url}/ws/cars") as response:
        assert (response.status, response.headers["Sec-WebSocket-Version"]) == (426, "13")
        assert (await response.json())["error"]["code"] == 426


async def test_the_servers_stop_lets_a_request_finish_then_ends_the_lifespan(client):
    events = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        events.append("start")
        yield
        events.append("stop")

    app = application(lifespan=lifespan)
    async with Server(port=0, http=app) as server:
        assert events == ["start"]
        request = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/wait"))
        await app.state.waiting.wait()
        asyncio.get_running_loop().call_later(0.05, app.state.release.set)
    async with await request as response:
        assert await response.text() == "done"
    assert events == ["start", "stop"]


async def test_a_lifespan_that_fails_keeps_the_server_from_listening():
    @contextlib.asynccontextmanager
    async def lifespan(app):
        raise OSError("no database")
        yield

    server = Server(port=0, http=Starlette(lifespan=lifespan))
    with pytest.raises(FastWSError, match="failed to start"):
        await server.start()
    assert not server.is_running


async def test_over_tls_the_same_port_speaks_both_too(serve, join, client, server_side, client_side):
    site = await serve(Echo(), ssl=server_side, http=application())
    url = site.url.replace("wss", "https", 1)
    for _ in range(2):
        async with client.post(f"{url}/echo", data=b"x" * MIB, ssl=client_side) as response:
            assert await response.read() == b"x" * MIB
    member = await join(f"{site.url}/ws/cars", ssl=client_side)
    await member.send("hi")
    assert await member.receive() == "hi"


@pytest.mark.parametrize("later", [False, True], ids=["first", "on a kept-alive connection"])
async def test_an_endpoints_path_speaks_websocket_also_where_an_application_does_not_know_it(serve, dial, later):
    site = await serve(Echo(), "/ws/{channel}", http=application())
    raw = await dial(site.url)
    if later:
        await raw.send(KEPT_ALIVE_GET)
        assert (await raw.response()).status == 200
    await raw.send(b"GET /ws/cars HTTP/1.1\r\nHost: x\r\n\r\n")
    response = await raw.response()
    assert response.status == 426
    assert response["Sec-WebSocket-Version"] == "13"
    assert b"this path only accepts WebSocket connections" in response.body


@pytest.mark.parametrize("line", ["GET /nowhere", "POST /ws/cars", "GET /ws"])
async def test_what_neither_knows_is_the_applications_404(serve, dial, line):
    site = await serve(Echo(), "/ws/{channel}", http=application())
    raw = await dial(site.url)
    await raw.send(KEPT_ALIVE_GET)
    assert (await raw.response()).status == 200
    await raw.send(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert (await raw.response()).status == 404


async def test_what_the_application_knows_at_an_endpoints_path_is_its_own(serve, dial):
    site = await serve(Echo(), "/hello", http=application())
    raw = await dial(site.url)
    await raw.send(KEPT_ALIVE_GET)
    assert (await raw.response()).status == 200
