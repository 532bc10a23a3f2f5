"""Readiness over HTTP: from the server's start to the beginning of its stop."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse

from fastws import Server

from ..lib.support import Holding


async def ready(raw):
    await raw.send(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
    response = await raw.response()
    return response.status, response.body


@pytest.mark.parametrize("app", [None, PlainTextResponse("the application")], ids=["alone", "with http"])
async def test_readiness_is_told_over_http(serve, dial, app):
    site = await serve(holding := Holding(), ready_path="/ready", http=app)
    assert site.server.is_ready
    assert await ready(await dial(site.url)) == (200, b'{"ready":true}')
    head = await dial(site.url)
    await head.send(b"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await head.eof()).startswith(b"HTTP/1.1 200 ")
    late = await dial(site.url)
    stopping = asyncio.create_task(site.server.stop())
    await holding.draining.wait()
    assert not site.server.is_ready
    assert await ready(late) == (503, b'{"ready":false}')
    holding.release.set()
    await stopping


async def test_readiness_is_told_on_a_kept_alive_connection(serve, dial):
    site = await serve(holding := Holding(), ready_path="/ready", http=PlainTextResponse("the application"))
    raw = await dial(site.url)
    await raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await raw.response()).body == b"the application"
    assert await ready(raw) == (200, b'{"ready":true}')
    stopping = asyncio.create_task(site.server.stop())
    await holding.draining.wait()
    assert await ready(raw) == (503, b'{"ready":false}')
    holding.release.set()
    await stopping


async def test_readiness_is_asked_for_with_get_at_its_path_alone(serve, dial):
    site = await serve(ready_path="/ready")
    for line in (b"POST /ready", b"GET /ready/", b"GET /"):
        raw = await dial(site.url)
        await raw.send(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await raw.response()).status == 404


async def test_a_server_is_ready_from_its_start_to_its_stop():
    server = Server(port=0)
    assert not server.is_ready
    await server.start()
    assert server.is_ready
    await server.stop()
    assert not server.is_ready
