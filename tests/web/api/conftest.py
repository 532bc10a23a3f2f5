"""Fixtures: `site` is a server with the API, `call` asks it by aiohttp."""

from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.web.api.site import BEARER, Site


@pytest.fixture
async def make_site():
    """`await make_site(**options)` starts a server with the API."""
    async with AsyncExitStack() as stack:

        async def make(**options):
            return await Site(stack, **options).start()

        yield make


@pytest.fixture
async def site(make_site):
    return await make_site()


@pytest.fixture
async def call(site):
    """`await call("POST", "/send", {...})` is the status and the JSON of the answer."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:

        async def ask(method, path, body=None, headers=BEARER, **options):
            if body is not None:
                options["json"] = body
            async with session.request(method, site.url + path, headers=headers, **options) as answer:
                return answer.status, await answer.json()

        yield ask
