"""Fixtures: `apply` serves an ASGI application, `join` connects to it, `scripted` does as the test says."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from fastws import Server
from fastws.testing import connect, running

from ..lib.raw import TIMEOUT
from .scripted import Scripted


@pytest.fixture
async def apply():
    """`await apply(app, **options)` serves it. Returns the URL and the server."""
    async with AsyncExitStack() as servers:

        async def start(app, **options):
            server = Server(port=0, http=app, **options)
            return await servers.enter_async_context(running(server)), server

        yield start


@pytest.fixture
async def join(apply):
    """`await join(url, ...)` is a client that closes after the test, before its server stops."""
    async with AsyncExitStack() as clients:

        async def enter(url, **options):
            return await clients.enter_async_context(connect(url, **{"timeout": TIMEOUT, **options}))

        yield enter


@pytest.fixture
async def scripted(apply, join):
    """`await scripted(**options)` is a running application whose part the test plays."""
    apps = []

    async def start(client=None, **options):
        app = Scripted(join, client or {})
        apps.append(app)
        app.url, app.server = await apply(app, **options)
        return app

    yield start
    for app in apps:
        await app.finish()
    await asyncio.sleep(0)
