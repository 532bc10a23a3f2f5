"""Fixtures: `serve` starts a server of fastws.v1, with what its channels keep."""

from contextlib import AsyncExitStack

import pytest

from fastws import History, Latest

from ..lib.v1 import Named, rules, serving

LOGS = {"room-*": History(size=5), "price-*": Latest(changes=5), "*-all": History(size=10_000)}


@pytest.fixture
async def serve():
    """`await serve(**options)` is a running site, whose channels keep what LOGS says."""
    async with AsyncExitStack() as sites:

        async def start(listener=None, **options):
            options = {"logs": LOGS, **options}
            return await sites.enter_async_context(serving(listener or Named(rules("*")), **options))

        yield start
