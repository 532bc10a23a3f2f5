"""The stores under test. Each starts a store, and yields what makes the backplane of one more node on it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest

from fastws.backplane.base import Backplane
from fastws.backplane.hub import HubClient
from fastws.backplane.hub_server import HubServer, HubWorker
from fastws.backplane.memory import Memory, MemoryStore
from fastws.backplane.nats import NATS
from fastws.backplane.redis import Redis

Make: TypeAlias = Callable[[], Backplane]
Store: TypeAlias = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Make]]


@asynccontextmanager
async def memory(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """The store of one process."""
    store = MemoryStore()
    yield lambda: Memory(store)


@asynccontextmanager
async def hub(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """The hub of several workers; each node at the other end of a socket pair."""
    server = HubServer()
    connecting: list[asyncio.Future[HubWorker]] = []

    def make() -> HubClient:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        connecting.append(asyncio.ensure_future(server.connect(ours)))
        return HubClient(f"hub://{theirs.detach()}")

    yield make
    await asyncio.gather(*connecting)
    await server.stop()


@asynccontextmanager
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """One Redis server, for all tests."""
    server = request.getfixturevalue("redis_server")
    yield lambda: Redis(server.url)


@asynccontextmanager
async def nats(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """One NATS server, for all tests."""
    server = request.getfixturevalue("nats_server")
    yield lambda: NATS(server.url)


@asynccontextmanager
async def valkey(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """One Valkey server, for all tests."""
    server = request.getfixturevalue("valkey_server")
    yield lambda: Redis(server.url)


#: Whoever adds a store adds it here. A session's fixture may start its server once for all tests
#: (``request.getfixturevalue``): each test has a prefix of its own.
STORES: dict[str, Store] = {"memory": memory, "hub": hub, "nats": nats, "redis": redis, "valkey": valkey}
