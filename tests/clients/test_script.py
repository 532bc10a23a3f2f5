"""/fastws.js, as a server serves it."""

from contextlib import asynccontextmanager

import aiohttp
import pytest

from fastws import Server
from fastws.web import script
from fastws.web.app import Web

from .js import CLIENT


@pytest.fixture
async def get():
    @asynccontextmanager
    async def get(path, method="GET", **headers):
        async with aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{server.port}{path}"
            async with session.request(method, address, headers=headers) as answer:
                yield answer

    web = Web()
    script.add_to(web)
    server = Server(port=0, http=web)
    async with server:
        yield get


async def test_the_script_is_served_to_pages_of_any_origin(get):
    async with get("/fastws.js", Origin="https://elsewhere.example") as answer:
        assert await answer.read() == (CLIENT / "fastws.js").read_bytes()
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_types_lie_beside_it(get):
    async with get("/fastws.d.ts") as answer:
        assert await answer.read() == (CLIENT / "fastws.d.ts").read_bytes()


@pytest.mark.parametrize("known", ["{}", "W/{}", '"another", {}', "*"])
async def test_what_a_browser_has_is_not_sent_again(get, known):
    async with get("/fastws.js") as answer:
        etag = answer.headers["ETag"]
    async with get("/fastws.js", **{"If-None-Match": known.format(etag)}) as answer:
        assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", etag)
    async with get("/fastws.js", **{"If-None-Match": '"an older one"'}) as answer:
        assert answer.status == 200


async def test_nothing_else_is_answered_and_head_has_no_body(get):
    async with get("/fastws.js", "POST") as answer:
        assert answer.status == 405
    async with get("/fastws.js", "HEAD") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) == len((CLIENT / "fastws.js").read_bytes())
