"""`backplanes` is a running store of each kind in turn: `await backplanes.node("a")` is a node on it."""

from collections.abc import AsyncIterator

import pytest

from .peers import Backplanes
from .stores import STORES


@pytest.fixture(params=sorted(STORES))
def store(request):
    return STORES[request.param]


@pytest.fixture
async def backplanes(request, store) -> AsyncIterator[Backplanes]:
    async with store(request) as make:
        nodes = Backplanes(make)
        yield nodes
        await nodes.stop()
