"""Fixtures: `site` is a server with the status page; `make_site` starts one from other settings."""

from contextlib import AsyncExitStack

import pytest

from tests.web.admin.site import serving, settings


@pytest.fixture
async def make_site(tmp_path):
    async with AsyncExitStack() as stack:

        async def make(**parts):
            return await stack.enter_async_context(serving(settings(tmp_path, **parts)))

        yield make


@pytest.fixture
async def site(make_site):
    return await make_site()
