"""Fixtures: `fleet` are servers that are one, on each kind of store; `memory_fleet` has links that can be cut.

`serve_logs` starts a single server of fastws.v1 whose channels keep what LOGS says.
"""

import itertools
from contextlib import AsyncExitStack

import pytest

from ..backplane.conftest import nats_server, redis_server, valkey_server  # noqa: F401  (fixtures)
from ..backplane.stores import STORES
from ..lib.fleet import Fleet
from ..lib.v1 import LOGS, Named, rules, serving

_prefixes = itertools.count(1)


@pytest.fixture(params=["memory", "hub", "redis", "nats"])
async def fleet(request):
    async with STORES[request.param](request) as make:
        fleet = Fleet(make, f"fleet{next(_prefixes)}", lease=1.0)
        yield fleet
        await fleet.stop()


@pytest.fixture
async def memory_fleet():
    fleet = Fleet.in_memory()
    yield fleet
    await fleet.stop()


@pytest.fixture
async def serve_logs():
    """`await serve_logs(**options)` is a running site."""
    async with AsyncExitStack() as sites:

        async def start(listener=None, **options):
            options = {"logs": LOGS, **options}
            return await sites.enter_async_context(serving(listener or Named(rules("*")), **options))

        yield start
