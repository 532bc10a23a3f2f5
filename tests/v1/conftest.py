"""The fixture `serve`: `await serve(listener)` is a running site, closed after the test."""

from contextlib import AsyncExitStack

import pytest

from ..lib.v1 import Named, rules, serving


@pytest.fixture
async def serve():
    async with AsyncExitStack() as sites:

        async def start(listener=None, *args, **options):
            return await sites.enter_async_context(serving(listener or Named(rules("*")), *args, **options))

        yield start
