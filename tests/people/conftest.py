"""Fixtures: `enter` brings a user into a channel."""

import itertools

import pytest

from ..lib.support import eventually


@pytest.fixture
async def enter(serve, join):
    """`await enter(site, user, channel)` is a client that is in the channel."""
    numbers = itertools.count()

    async def come(site, user, channel="cars"):
        name = "" if user is None else f"?user={user}"
        client = await join(f"{site.url}/ws/{channel}{name}", headers={"X-Number": (number := str(next(numbers)))})
        await eventually(lambda: ours(site, number))
        client.ws = ours(site, number)
        await client.ping()
        return client

    def ours(site, number):
        return next((ws for ws in site.manager.connections.values() if ws.headers.get("x-number") == number), None)

    return come
