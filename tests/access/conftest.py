"""Fixtures: `site` admits by token, `browse` makes visitors with cookies; `store` and `listener` have two variants."""

import itertools
import shutil
import socket
import subprocess
import time
from contextlib import AsyncExitStack

import aiohttp
import pytest
import redis.asyncio
from starsessions import InMemoryStore
from starsessions.stores.redis import RedisStore

from fastws import JWTAuth

from ..lib.raw import TIMEOUT
from ..lib.support import unused_port
from ..lib.tokens import SECRET, Who
from ..lib.visitors import Browser, Session, SlowSession


@pytest.fixture
async def site(serve):
    """A server that admits clients with a token."""
    return await serve(Who(), auth=JWTAuth(SECRET))


@pytest.fixture
async def browse(join):
    """`await browse(site)` is a visitor with a cookie jar."""
    async with AsyncExitStack() as sessions:

        async def enter(site) -> Browser:
            http = aiohttp.ClientSession(
                cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(TIMEOUT)
            )
            return Browser(site, await sessions.enter_async_context(http), join)

        yield enter


@pytest.fixture(scope="module")
def redis_port():
    """The port of a real Redis server without persistence."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with unused_port() as port:
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        words = itertools.chain.from_iterable((f"--{name}", str(it)) for name, it in options.items())
        with subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(port)
                yield port
            finally:
                process.terminate()


def wait_for(port):
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.02)


@pytest.fixture
async def redis_client(redis_port):
    async with redis.asyncio.Redis(port=redis_port) as client:
        await client.flushall()
        yield client


@pytest.fixture(params=["memory", "redis"])
def store(request):
    """A store from starsessions."""
    if request.param == "memory":
        return InMemoryStore()
    return RedisStore(connection=request.getfixturevalue("redis_client"))


@pytest.fixture(params=[Session, SlowSession], ids=["def", "async def"])
def listener(request):
    return request.param()
