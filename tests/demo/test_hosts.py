"""The demo serves its own hosts, and pages of its own or allowed origins."""

import asyncio
import socket
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fastws import ConfigurationError
from fastws.demo import create_server
from fastws.demo.page import COOKIE

from ..hostile.hosts import HOST, NOT_ALLOWED, NOT_SERVED, ORIGINS, WELCOME
from ..lib.chat import SECRET, fetch
from ..lib.raw import TIMEOUT, Raw, request
from ..lib.support import signed_cookie


@pytest.fixture
async def guarded():
    """A demo with its own host and origins, as started by `fastws serve`, on an available address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with create_server(host=HOST, fd=[sock.fileno()], origins=ORIGINS, secret=SECRET) as server:
            yield server


async def answers(server, host, origin):
    """(Status, reason or body) of requests by HTTP, and of both endpoints' handshakes."""
    fields = {"host": host} if origin is None else {"host": host, "origin": origin}
    paths = [("GET", "/"), ("GET", "/session"), ("POST", "/logout")]
    by_http = [await fetch(server, method, path, **fields) for method, path in paths]
    cookie = f"{COOKIE}={signed_cookie({'name': 'ann', 'id': '1', 'since': time.time()}, SECRET)}"
    extra = [(name.title(), value) for name, value in fields.items()]
    by_socket = []
    for path in ("/ws/chat/cars", "/ws/cars"):
        raw = await Raw.open(f"ws://127.0.0.1:{server.port}")
        await raw.send(request(path, without=["Host"], extra=[*extra, ("Cookie", cookie)]))
        response = await raw.response()
        by_socket.append((response.status, "" if response.status == 101 else response.error["message"]))
        raw.close()
    return [(status, body.decode()) for status, _, body in by_http], by_socket


@pytest.mark.parametrize("name", WELCOME)
async def test_the_demos_own_pages_and_those_allowed_are_served(guarded, name):
    by_http, by_socket = await answers(guarded, *WELCOME[name])
    assert [status for status, _ in by_http] == [200] * 3
    assert [status for status, _ in by_socket] == [101] * 2


async def must_be_refused(server, host, origin, expected, what):
    """Every answer names what is refused and how to allow it."""
    by_http, by_socket = await answers(server, host, origin)
    for status, message in by_http + by_socket:
        assert status == expected
        assert message.startswith(what)
        assert message.endswith("--origins https://chat.example.org")
        assert len(message) < 300


@pytest.mark.parametrize("name", NOT_SERVED)
async def test_a_host_that_nobody_named_is_421_and_says_how_to_allow_it(guarded, name):
    host, origin = NOT_SERVED[name]
    await must_be_refused(guarded, host, origin, 421, f"the host '{host[:20]}")


@pytest.mark.parametrize("name", NOT_ALLOWED)
async def test_another_origin_is_403_and_says_how_to_allow_it(guarded, name):
    host, origin = NOT_ALLOWED[name]
    await must_be_refused(guarded, host, origin, 403, f"the origin '{origin.strip()}'")


async def test_the_machines_own_name_is_served(server):
    name = socket.gethostname()
    status, _, _ = await fetch(server, "GET", "/", host=f"{name}:{server.port}")
    assert status == 200


async def test_a_request_that_comes_later_on_a_connection_is_looked_at_as_well(server):
    """uvicorn parses it, which is less strict about Host."""
    for fields in ("Host: evil.example", "X-A: none", "Host: localhost\r\nHost: evil.example", "Host: a b", "Host:"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /session HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b'{"name":null}'), TIMEOUT)
        writer.write(f"GET /session HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), TIMEOUT)
        assert answer.startswith(b"HTTP/1.1 421 "), fields
        writer.close()


async def test_over_tls_a_page_that_came_without_is_of_another_origin(server_side, client_side):
    async with create_server(port=0, ssl=server_side) as server:
        url = f"wss://127.0.0.1:{server.port}/ws/cars"
        client_side.check_hostname = False
        async with connect(url, ssl=client_side, origin=f"https://127.0.0.1:{server.port}"):
            pass
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, ssl=client_side, origin=f"http://127.0.0.1:{server.port}")
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "origin", ["chat.example.org", "https://chat.example.org/", "https://", "null", "*", "https://café.example", "://a"]
)
def test_an_origin_that_is_none_is_refused_at_once_in_one_sentence(origin):
    with pytest.raises(ConfigurationError) as error:
        create_server(port=0, origins=[origin])
    assert f"{origin!r} is not an origin: write " in str(error.value)
