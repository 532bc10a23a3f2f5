"""Presence and shared dicts on a Redis that stands still, goes away, or comes back empty."""

import asyncio

import pytest

from fastws.backplane import Redis
from fastws.testing import connect

from ..lib.fleet import Fleet
from ..lib.people import People, notices
from ..lib.raw import TIMEOUT
from ..lib.redis import RedisServer
from ..lib.support import eventually

PEOPLE = ["ann", "bob", "cat"]


@pytest.fixture
async def redis(tmp_path):
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
async def site(redis):
    """Three nodes, on each a person in a watched channel, who has been told of the others."""
    fleet = Fleet(lambda: Redis(redis.url), "people", lease=1.0)
    sites = [await fleet.start(People(), shared=["blocked"]) for _ in PEOPLE]
    clients = []
    for site, name in zip(sites, PEOPLE, strict=True):
        site.manager.watch_presence("cars")
        client = connect(f"{site.url}/ws/cars?user={name}", timeout=TIMEOUT)
        clients.append((client, await client.__aenter__()))
        await agree(sites[: len(clients)], PEOPLE[: len(clients)])
    for _, client in clients:
        await client.received()
    yield sites, [client for _, client in clients]
    for manager, _ in clients:
        await manager.__aexit__(None, None, None)
    await fleet.stop()


async def agree(sites, people):
    async with asyncio.timeout(30):  # a store that is back may be heard of late, and is doubted for a while
        while not all(set(site.manager.presence("cars")) == set(people) for site in sites):
            await asyncio.sleep(0.01)


def dicts(sites):
    return [dict(site.server.shared("blocked")) for site in sites]


async def newcomer(site):
    """Whoever comes is told of to all, so that whatever was told before has arrived."""
    return connect(f"{site.url}/ws/cars?user=dan", timeout=TIMEOUT)


async def told_of_dan_alone(clients):
    for client in clients:
        got = []
        while not got:
            got = await notices(client)
            await asyncio.sleep(0.01)
        assert got == [("join", "dan")]


async def test_redis_stands_still(redis, site):
    sites, clients = site
    redis.freeze()
    sites[0].server.shared("blocked")["ann"] = 1
    await asyncio.sleep(3)
    assert all(set(site.manager.presence("cars")) == set(PEOPLE) for site in sites)
    redis.thaw()
    await eventually(lambda: dicts(sites) == [{"ann": 1}] * 3)
    await asyncio.sleep(2)
    async with await newcomer(sites[1]):
        await told_of_dan_alone(clients)
        await agree(sites, [*PEOPLE, "dan"])


async def test_redis_comes_back_empty(redis, site):
    sites, clients = site
    await sites[0].server.shared("blocked").set("ann", 1)
    await eventually(lambda: dicts(sites) == [{"ann": 1}] * 3)
    redis.kill()
    sites[1].server.shared("blocked")["bob"] = 2
    await asyncio.sleep(1)
    redis.start()
    await eventually(lambda: dicts(sites) == [{"ann": 1, "bob": 2}] * 3)
    await asyncio.sleep(7)  # longer than others have to write themselves anew
    assert all(set(site.manager.presence("cars")) == set(PEOPLE) for site in sites)
    async with await newcomer(sites[1]):
        await told_of_dan_alone(clients)
        await agree(sites, [*PEOPLE, "dan"])


async def test_redis_is_away_while_people_come_and_go(redis, site):
    sites, (ann, bob, cat) = site
    redis.kill()
    await eventually(lambda: not sites[0].server.is_connected)
    async with await newcomer(sites[0]):
        await eventually(lambda: "dan" in sites[0].manager.presence("cars"))
        await cat.close()
        await eventually(lambda: "cat" not in sites[2].manager.presence("cars"))
        assert set(sites[0].manager.presence("cars")) == {*PEOPLE, "dan"}
        redis.start()
        await agree(sites, ["ann", "bob", "dan"])
    await agree(sites, ["ann", "bob"])
    for client in (ann, bob):
        got = []
        while len(got) < 3:
            got += await notices(client)
            await asyncio.sleep(0.01)
        assert sorted(got) == [("join", "dan"), ("leave", "cat"), ("leave", "dan")]
