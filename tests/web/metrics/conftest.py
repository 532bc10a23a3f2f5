"""Fixtures: `serve` starts a server with metrics; `backend` answers its hooks."""

from contextlib import AsyncExitStack
from types import SimpleNamespace

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastws.access.keys import KeySettings
from fastws.access.rules import ChannelRule
from fastws.command.settings import Settings
from fastws.standalone import create_server
from fastws.testing import running
from fastws.web.api import ApiSettings
from fastws.web.metrics import MetricsSettings
from tests.hooks.conftest import Backend
from tests.lib.v1 import Site

READER = "a-key-that-only-reads-0123456789"
WRITER = "a-key-that-broadcasts-0123456789"
API = ApiSettings(
    keys=(
        KeySettings(name="prometheus", key=READER, allow=("read",)),
        KeySettings(name="shop", key=WRITER, allow=("broadcast",)),
    )
)
OPEN = ChannelRule(pattern="*", subscribe="anyone", publish="anyone")


def by_labels(families):
    """The values of samples by name and labels, these in the order of their names: ("fastws_users", "/ws")."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


class Observed(Site):
    """A server, and what Prometheus sees of it."""

    async def get(self, path, **headers):
        """The status, the body and the header of a GET."""
        url = self.url.replace("ws:", "http:") + path
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            return SimpleNamespace(status=answer.status, text=await answer.text(), headers=answer.headers)

    async def families(self):
        """The families of a scrape, by name, as prometheus-client parses them."""
        answer = await self.get("/metrics")
        assert answer.status == 200, answer.text
        return {family.name: family for family in text_string_to_metric_families(answer.text)}

    async def scrape(self):
        """What a scrape says, `by_labels`."""
        return by_labels((await self.families()).values())


@pytest.fixture
async def serve():
    """`await serve(**settings)` starts a server whose metrics are public."""
    async with AsyncExitStack() as stack:

        async def start(**settings):
            given = {"options": {"port": 0}, "channels": (OPEN,), "metrics": MetricsSettings(public=True), **settings}
            server = create_server(Settings(**given))
            url = await stack.enter_async_context(running(server))
            clients = await stack.enter_async_context(AsyncExitStack())
            return Observed(server, server.endpoints["/ws"], url, clients)

        yield start


@pytest.fixture
async def backend():
    found = Backend()
    await found.start()
    yield found
    await found.stop()
