"""The table of routes: lifespans, what is behind it, and a port of the API's own."""

import asyncio
import socket

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastws import ConfigurationError, FastWSError, Server
from fastws.answers import Answer
from fastws.testing import running
from fastws.web.api import ApiSettings
from fastws.web.app import Web
from tests.web.api.site import BEARER, KEYS, curl


async def text_of(request):
    return Answer(200, f"{request.params} {request.query} {request.query_all('a')} {request.peer[0]}")


async def serve(web, check):
    async with running(Server(port=0, http=web)) as url:
        await check(url.replace("ws:", "http:"))


async def test_a_request_tells_its_parameters_its_query_and_its_peer():
    web = Web()
    web.add("GET", "/a/{name}/b", text_of)

    async def check(url):
        status, fields, said = await curl(f"{url}/a/x%2Fy/b?a=1&a=%C3%A9&b")
        assert (status, fields["content-type"]) == (200, "text/plain; charset=utf-8")
        assert said.decode() == "{'name': 'x/y'} {'a': 'é', 'b': ''} ['1', 'é'] 127.0.0.1"
        assert (await curl(f"{url}/a/x/b?a=%ff"))[0] == 400
        assert (await curl(f"{url}/a/x/b?" + "&".join(["a"] * 1001)))[0] == 400

    await serve(web, check)


@pytest.mark.parametrize(
    ("answer", "kind", "body"),
    [
        (Answer(200, {"a": 1}), "application/json", b'{"a":1}'),
        (Answer(200, b"\0\xff"), "application/octet-stream", b"\0\xff"),
        (Answer(200, "\u00e9", {"Content-Type": "text/html"}), "text/html", "\u00e9".encode()),
        (Answer(304, "", {"ETag": '"1"'}), None, b""),
        (Answer(204, b""), None, b""),
    ],
)
async def test_an_answer_is_json_text_or_bytes(answer, kind, body):
    web = Web()
    web.add("GET", "/", lambda request: answer)

    async def check(url):
        async with aiohttp.request("GET", url) as got:
            assert (got.status, got.headers.get("Content-Type"), await got.read()) == (answer.status, kind, body)

    await serve(web, check)


def test_a_route_is_taken_once():
    web = Web()
    web.add("GET", "/a/{b}", text_of)
    web.add("POST", "/a/{c}", text_of)
    with pytest.raises(ConfigurationError, match="GET /a/\\{d\\} is served already"):
        web.add("GET", "/a/{d}", text_of)


class Part:
    """Something that runs with the server."""

    def __init__(self, log, name, fails=False):
        self.log, self.name, self.fails = log, name, fails

    async def __aenter__(self):
        self.log.append(f"+{self.name}")
        if self.fails:
            raise OSError("it cannot")

    async def __aexit__(self, *exc_info):
        self.log.append(f"-{self.name}")


async def test_an_application_behind_gets_the_rest_and_its_lifespan():
    log = []

    async def lifespan(app):
        log.append("+app")
        yield
        log.append("-app")

    async def hello(request):
        return PlainTextResponse("hello")

    import contextlib

    behind = Starlette(routes=[Route("/hello", hello)], lifespan=contextlib.asynccontextmanager(lifespan))
    web = Web(behind)
    web.add("GET", "/ours", text_of)
    web.run_with(Part(log, "a"))
    web.run_with(Part(log, "b"))

    async def check(url):
        assert (await curl(f"{url}/hello"))[2] == b"hello"
        assert (await curl(f"{url}/ours"))[0] == 200
        assert (await curl(f"{url}/nothing"))[2] == b"Not Found"

    await serve(web, check)
    assert log == ["+app", "+a", "+b", "-app", "-b", "-a"] or log == ["+app", "+a", "+b", "-b", "-a", "-app"]


@pytest.mark.parametrize("raises", [True, False])
async def test_an_application_behind_need_not_have_a_lifespan(raises):
    async def behind(scope, receive, send):
        if scope["type"] != "http":
            if raises:
                raise RuntimeError("only http")
            return
        await Answer(200, "behind").as_asgi(send)

    log = []
    web = Web(behind)
    web.run_with(Part(log, "a"))

    async def check(url):
        assert (await curl(f"{url}/x"))[2] == b"behind"

    await serve(web, check)
    assert log == ["+a", "-a"]


async def test_a_part_that_does_not_start_keeps_the_server_from_it_and_ends_the_others(caplog):
    log = []
    web = Web()
    web.run_with(Part(log, "a"))
    web.run_with(Part(log, "b", fails=True))
    with pytest.raises(FastWSError, match="failed to start"):
        await Server(port=0, http=web).start()
    assert log == ["+a", "+b", "-a"]
    assert "it cannot" in caplog.text


# -- a port of its own


async def test_the_api_may_have_a_port_of_its_own(make_site):
    site = await make_site(settings=ApiSettings(path="/publish/", listen="127.0.0.1:0", keys=KEYS))
    client = await site.join("/raw/cars")
    own = f"http://127.0.0.1:{site.api.server.port}/publish"
    async with aiohttp.ClientSession(headers=BEARER) as session:
        async with session.post(f"{own}/broadcast", json={"channel": "cars", "message": 1}) as answer:
            assert (answer.status, await answer.json()) == (200, {"connections": 1})
        async with session.get(f"{own}/openapi.json") as answer:
            assert "/publish/broadcast" in (await answer.json())["paths"]
        async with session.post(f"http://127.0.0.1:{site.server.port}/publish/broadcast", json={}) as answer:
            assert answer.status == 404
    assert await client.receive() == "1"
    await site.server.stop()
    assert not site.api.server.is_running


async def test_a_port_that_is_taken_keeps_the_server_from_its_start(make_site, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(FastWSError, match="failed to start"):
            await make_site(settings=ApiSettings(listen=listen, keys=KEYS))
    assert "address already in use" in caplog.text.lower()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"listen": "8766"}, "try '127.0.0.1:8766'"),
        ({"listen": "127.0.0.1:99999"}, "is not host:port"),
        ({"path": "api"}, "try '/api'"),
    ],
)
async def test_settings_that_cannot_work_are_told(make_site, settings, says):
    with pytest.raises(ConfigurationError, match=says):
        await make_site(settings=ApiSettings(**settings))


# -- many at once


async def test_a_burst_holds_up_nobody_and_is_answered_in_order(site):
    """Each connection sends many requests before it reads an answer, and all get theirs, in order."""
    client = await site.join("/raw/cars")

    async def publish(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        for n in range(20):
            body = b'{"channel": "cars", "text": "%d %d"}' % (number, n)
            head = f"POST /api/broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER['Authorization']}\r\n"
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        for _ in range(20):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(b'{"connections":1}')) == b'{"connections":1}'
        writer.close()

    await asyncio.gather(*[publish(number) for number in range(30)])
    got = [await client.receive() for _ in range(600)]
    for number in range(30):
        assert [text for text in got if text.split()[0] == str(number)] == [f"{number} {n}" for n in range(20)]


@pytest.mark.parametrize("at", [30, 150, -5])
async def test_a_request_in_two_pieces_is_answered_like_one(site, at):
    body = b'{"channel": "cars", "text": "hi"}'
    head = f"POST /api/broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER['Authorization']}\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    for _ in range(2):
        writer.write(request[:at])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(request[at:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(17) == b'{"connections":0}'
    writer.close()


async def test_a_request_that_closes_is_answered_and_the_connection_closed(site):
    body = b'{"channel": "cars", "text": "hi"}'
    head = (
        f"POST /api/broadcast HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {BEARER['Authorization']}\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(5):
        assert (await reader.read()).endswith(b'{"connections":0}')
    writer.close()
