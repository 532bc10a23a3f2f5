"""What is said to one worker reaches those at the others."""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from fastws.testing import Closed, connect

from ..lib.command import TIMEOUT
from .supervised import HERE, Visitors, supervised, within

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel spreads connections on Linux"),
]
MESSAGES = 200
TRIES = 50


@asynccontextmanager
async def members(site, channel, workers=3):
    """A client of the channel at each worker."""
    async with everywhere(site.room(channel), workers) as clients:
        yield clients


@asynccontextmanager
async def everywhere(url, workers=3):
    """A client at each worker."""
    async with AsyncExitStack() as opened:
        found = {}
        while len(found) < workers:
            client = await opened.enter_async_context(connect(url, timeout=TIMEOUT))
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


async def known(clients):
    """Wait until the store knows the users: only then messages are read."""
    for client in clients:
        await client.send("echo")
        assert await client.receive() == "echo"


async def test_a_user_is_reached_at_all_workers_and_closed_at_all():
    with supervised(*HERE, workers=3) as site:
        async with everywhere(site.people("ann")) as ann, everywhere(site.people("bob")) as bob:
            await known([*ann, *bob])
            for client in ann:
                await client.send("send bob")
            assert [await received(client, 3) for client in bob] == [["hi"] * 3] * 3
            await ann[0].send("close bob")
            for client in bob:
                with pytest.raises(Closed):
                    await client.receive()
            assert [await client.received() for client in ann] == [[]] * 3


def events(folder, what, user):
    """When a user came or went, as any worker has noted."""
    lines = folder.joinpath("events").read_text().splitlines() if folder.joinpath("events").exists() else []
    return [float(line.split()[2]) for line in lines if line.split()[:2] == [what, user]]


async def test_a_user_comes_and_goes_once_also_when_workers_are_killed_and_without_waiting_for_a_lease(folder):
    with supervised(*HERE, "--lease", "60", workers=3) as site:
        pids = site.workers
        async with everywhere(site.people("ann")) as clients:
            await known(clients)
            assert len(events(folder, "online", "ann")) == 1
            for number in (1, 2):
                os.kill(pids[number], signal.SIGKILL)
                with pytest.raises(Closed):
                    await clients[number - 1].receive()
            await clients[2].send("send ann")
            assert await clients[2].receive() == "hi"
            assert events(folder, "offline", "ann") == []
            killed = time.time()
            os.kill(pids[3], signal.SIGKILL)
            await asyncio.to_thread(within, lambda: events(folder, "offline", "ann"))
            assert events(folder, "offline", "ann")[0] - killed < 20
        await asyncio.sleep(0.5)
        assert len(events(folder, "online", "ann")) == len(events(folder, "offline", "ann")) == 1


async def test_nobody_leaves_while_the_workers_are_replaced(folder):
    users = [f"user{number}" for number in range(20)]
    with supervised(*HERE, "--log-level", "info", "--handover", "30", workers=3) as site:
        async with AsyncExitStack() as opened:
            visitors = [await opened.enter_async_context(Visitors(site.people(user), 1)) for user in users]
            for visitor in visitors:
                await visitor.all_with(lambda _: True)
            site.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(site.until, "all workers were replaced")
            for visitor in visitors:
                await visitor.all_with(lambda _: True)
            await asyncio.sleep(0.5)
            assert [events(folder, "offline", user) for user in users] == [[]] * len(users)
            assert [len(events(folder, "online", user)) for user in users] == [1] * len(users)
            assert [visitor.refused for visitor in visitors] == [[]] * len(users)


async def until_event(client, event, user):
    """Wait until the members of a channel are told of somebody; of one who is there it may be the list that tells."""
    while True:
        said = json.loads(await client.receive())
        is_listed = event == "join" and user in [person["user"] for person in said.get("users", ())]
        if is_listed or (said["event"], said.get("user")) == (event, user):
            return


async def test_whoever_was_at_a_killed_worker_leaves_at_once_everywhere():
    with supervised(*HERE, "--lease", "60", workers=2) as site:
        async with AsyncExitStack() as opened:

            async def sit(worker):
                """Somebody in the channel at that worker: a client, and a name that nobody else has had."""
                while True:
                    user = f"user{next(numbers)}"
                    url = f"ws://127.0.0.1:{site.port}/seats/cars?user={user}"
                    client = await opened.enter_async_context(connect(url, timeout=TIMEOUT))
                    if await client.receive() == worker:
                        return client, user
                    await client.close()

            numbers = itertools.count()
            ann, _ = await sit("1")
            _, bob = await sit("2")
            await until_event(ann, "join", bob)
            killed = time.monotonic()
            os.kill(site.workers[2], signal.SIGKILL)
            await until_event(ann, "leave", bob)
            assert time.monotonic() - killed < 20
