"""Nodes that are killed, stopped and wake up, and a Redis that stands still or comes back empty: real ones."""

import asyncio
import itertools
import signal
import time

import pytest

from fastws.backplane import Redis

from ..lib.fleet import Fleet, calls, online
from ..lib.member import Member
from ..lib.redis import RedisServer
from ..lib.support import eventually

LEASE = 1.5
COMING, GOING = "on_user_online", "on_user_offline"
_prefixes = itertools.count(1)


@pytest.fixture
def redis(tmp_path):
    """A Redis of the test's own."""
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
async def servers(redis):
    """Servers in this process, on that Redis."""
    fleet = Fleet(lambda: Redis(redis.url), f"servers{next(_prefixes)}", lease=LEASE)
    yield fleet
    await fleet.stop()


@pytest.fixture
async def member(servers, redis):
    """A node that is a process of its own, one with those servers."""
    member = Member(redis.url, **servers.common)
    yield await member.ready()
    member.end()


async def enter(join, member, user, times=1):
    client = await join(f"{member.url}/ws/cars?user={user}")
    await member.until("on_subscribe", user, times=times)
    return client


def known(site):
    return {node.id for node in site.server.nodes}


async def test_users_of_a_node_that_is_killed_are_gone_once(servers, member, join):
    sites = a, b = await servers.start(), await servers.start()
    users = [f"user{number}" for number in range(40)]
    for user in users:
        await enter(join, member, user)
    await eventually(lambda: member.id in known(a))
    killed = time.monotonic()
    member.signal(signal.SIGKILL)
    back = users[:10]
    for number, user in enumerate(back):
        await join(f"{sites[number % 2].url}/ws/cars?user={user}")
    await eventually(lambda: len(calls(sites, GOING)) >= 30)
    assert time.monotonic() - killed >= LEASE * 0.6
    await eventually(lambda: member.id not in known(a) | known(b))
    await asyncio.sleep(LEASE)
    assert sorted(calls(sites, GOING)) == sorted((GOING, user) for user in users[10:])
    assert calls(sites, COMING) == []
    assert await a.server._node.directory.online([]) == {}


async def test_a_node_that_was_stopped_for_two_leases_says_that_its_users_are_back(servers, member, join):
    a = await servers.start()
    await enter(join, member, "ann")
    await member.until(COMING, "ann")
    await eventually(lambda: member.id in known(a))
    member.signal(signal.SIGSTOP)
    await a.manager.listener.until(GOING)
    await asyncio.sleep(LEASE)
    member.signal(signal.SIGCONT)
    await member.until(COMING, "ann", times=2)
    await eventually(lambda: member.id in known(a))
    await asyncio.sleep(LEASE)
    assert calls([a], COMING, GOING) == [(GOING, "ann")]
    assert len([event for event in member.events if event[0] in (COMING, GOING)]) == 2


async def test_who_was_logged_out_meanwhile_is_not_heard_when_the_node_wakes_up(servers, member, join):
    a = await servers.start()
    ann, bob = await enter(join, member, "ann"), await enter(join, member, "bob")
    await ann.send("before")
    await member.until("on_message", "ann", "before")
    member.signal(signal.SIGSTOP)
    await ann.send("after")
    await bob.send("after")
    await asyncio.sleep(2 * LEASE)
    a.manager.close_user("ann")
    await a.manager.flush()
    member.signal(signal.SIGCONT)
    await member.until("on_message", "bob", "after")
    assert await ann.closed() == (4001, "logged out")
    assert ("on_message", "ann", "after") not in member.events


async def test_a_process_says_kicks_and_obeys_them(servers, member, join):
    a = await servers.start()
    here, there = await join(f"{a.url}/ws/cars?user=ann"), await enter(join, member, "bob")
    await a.manager.listener.until("on_subscribe")
    member.do("close_user", "ann")
    assert await here.closed() == (4001, "logged out")
    a.manager.close_user("bob")
    assert await there.closed() == (4001, "logged out")


async def test_while_redis_stands_still_nobody_dies(servers, redis, join):
    sites = await servers.three()
    await join(f"{sites[0].url}/ws/cars?user=ann")
    await eventually(lambda: calls(sites, "on_subscribe"))
    redis.freeze()
    await asyncio.sleep(3 * LEASE)
    redis.thaw()
    await eventually(lambda: all(site.server.is_connected for site in sites))
    await asyncio.sleep(2 * LEASE)
    assert [site.server._node.key.incarnation for site in sites] == [1, 1, 1]
    assert calls(sites, COMING, GOING) == [(COMING, "ann")]


async def test_a_redis_that_comes_back_empty_makes_nobody_come_or_go(servers, redis, join):
    sites = a, b, _ = await servers.three()
    for site in sites:
        await join(f"{site.url}/ws/cars?user=ann")
    client = await join(f"{b.url}/ws/cars?user=bob")
    await eventually(lambda: len(calls(sites, "on_subscribe")) == 4)
    a.manager.close_user("nobody")
    await a.manager.flush()
    redis.kill()
    await eventually(lambda: not any(site.server.is_connected for site in sites))
    redis.start()
    await eventually(lambda: all(len(site.server.nodes) == 3 and site.server.is_connected for site in sites))
    await asyncio.sleep(2 * LEASE)
    assert online(sites) == {"ann": 1, "bob": 1}
    assert calls(sites, GOING) == []
    a.manager.send_to_user("bob", "still there?")
    assert await client.receive() == "still there?"
    a.manager.close_user("bob")
    assert await client.closed() == (4001, "logged out")
