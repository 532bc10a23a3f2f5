"""`backplanes` is a running store of each kind in turn: `await backplanes.node("a")` is a node on it."""

from collections.abc import AsyncIterator

import pytest

from ..lib.nats import NATSServer
from ..lib.redis import RedisServer, valkey
from ..lib.support import unused_port
from .peers import Backplanes
from .stores import STORES


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A Redis server without persistence."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory):
    """A NATS server with JetStream."""
    with unused_port() as port:
        server = NATSServer(tmp_path_factory.mktemp("nats"), port)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory):
    """A Valkey server without persistence."""
    server = RedisServer(tmp_path_factory.mktemp("valkey"), program=valkey()).start()
    yield server
    server.stop()


@pytest.fixture(params=sorted(STORES))
def store(request):
    return STORES[request.param]


@pytest.fixture
async def backplanes(request, store) -> AsyncIterator[Backplanes]:
    async with store(request) as make:
        nodes = Backplanes(make)
        yield nodes
        await nodes.stop()
