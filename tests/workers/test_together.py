"""What is said to one worker reaches those at the others."""

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from fastws.testing import connect

from ..lib.command import TIMEOUT
from .supervised import HERE, supervised

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel spreads connections on Linux"),
]
MESSAGES = 200
TRIES = 50


@asynccontextmanager
async def members(site, channel, workers=3):
    """A client of the channel at each worker."""
    async with AsyncExitStack() as opened:
        found = {}
        while len(found) < workers:
            client = await opened.enter_async_context(connect(site.room(channel), timeout=TIMEOUT))
            number = await client.receive()
            if number in found:
                await client.close()
            else:
                found[number] = client
        yield [found[number] for number in sorted(found)]


async def received(client, count):
    return [await client.receive() for _ in range(count)]


async def heard(clients):
    """Wait until all are told of what is said: a worker asks the hub where a log ends when its first member comes."""
    last = f"anybody? {TRIES - 1}"
    for number in range(TRIES):
        await clients[0].send(f"anybody? {number}")
        await asyncio.sleep(0.02)
    for client in clients:
        while await client.receive() != last:
            pass


async def test_a_broadcast_reaches_the_members_at_all_workers_once_and_in_order():
    with supervised(*HERE, workers=3) as site:
        async with members(site, "cars") as clients, members(site, "other") as others:
            for number in range(MESSAGES):
                await clients[0].send(f"{number}")
            expected = [f"{number}" for number in range(MESSAGES)]
            assert await asyncio.gather(*[received(client, MESSAGES) for client in clients]) == [expected] * 3
            await clients[1].send("from another")
            assert await asyncio.gather(*[received(client, 1) for client in clients]) == [["from another"]] * 3
            await others[2].send("last")
            assert await asyncio.gather(*[received(client, 1) for client in others]) == [["last"]] * 3


async def test_a_log_has_one_order_at_all_workers():
    with supervised(*HERE, workers=3) as site:
        async with members(site, "log-cars") as clients:
            await heard(clients)
            for number in range(MESSAGES):
                for name, client in enumerate(clients):
                    await client.send(f"{name} {number}")
            first, *rest = await asyncio.gather(*[received(client, 3 * MESSAGES) for client in clients])
            assert rest == [first] * 2
            assert sorted(first) == sorted(f"{name} {number}" for name in range(3) for number in range(MESSAGES))
