"""Nodes: who is there, who dies, who buries them, and who comes back."""

import asyncio

import pytest

from fastws.backplane.base import NodeKey, UserName

from ..lib.fleet import LEASE, Link, calls, link, online
from ..lib.support import eventually

COMING, GOING = "on_user_online", "on_user_offline"


class Watching:
    """What a node was told of the others."""

    def __init__(self, site):
        self.told = []
        site.server._node.members.watch(self)

    def on_appeared(self, node):
        self.told.append(("appeared", node))

    def on_died(self, node, *, is_certain):
        self.told.append(("died", node))

    def on_reborn(self, before):
        self.told.append(("reborn", before))


def key(site) -> NodeKey:
    return site.server._node.key


def ids(site):
    return {node.id for node in site.server.nodes}


async def test_each_server_lists_all(fleet, join):
    sites = await fleet.three()
    await join(f"{sites[1].url}/ws/cars")
    everybody = {key(site).id for site in sites}
    await eventually(lambda: all(ids(site) == everybody for site in sites))
    await eventually(lambda: sum(node.connections for node in sites[0].server.nodes) == 1)
    first, *others = sites[0].server.nodes
    assert first.is_self
    assert not any(node.is_self for node in others)
    assert {node.address for node in others} == {f"127.0.0.1:{site.server.port}" for site in sites[1:]}
    assert all(site.server.is_connected for site in sites)
    assert sites[0].server.stats["cluster"]["nodes"] == 3
    assert sites[0].server.stats["cluster"]["connected"] is True


async def test_without_a_backplane_there_are_no_nodes(serve):
    site = await serve()
    assert site.server.nodes == []
    assert not site.server.is_connected
    assert "cluster" not in site.server.stats


async def test_whoever_is_killed_is_dead_after_a_lease_and_a_beat_and_its_users_are_gone(memory_fleet, join):
    a, b, c = await memory_fleet.three()
    told = Watching(b).told
    store = link(a).store
    for number in range(1200):
        store.claim(UserName("/ws/{channel}", f"user{number}"), key(a))
    store.claim(UserName("/ws/{channel}", "user7"), key(c))
    memory_fleet.kill(a)
    began = asyncio.get_running_loop().time()
    await eventually(lambda: told)
    assert told == [("died", key(a))]
    assert asyncio.get_running_loop().time() - began >= LEASE * 0.6
    await eventually(lambda: len(calls([b, c], GOING)) == 1199)
    await asyncio.sleep(LEASE)
    assert len(set(calls([b, c], GOING))) == 1199
    assert (GOING, "user7") not in calls([b, c], GOING)
    assert not store.holdings(key(a))
    assert not store._buriers
    assert ids(b) == {key(b).id, key(c).id}


async def test_who_comes_back_on_another_node_before_the_burial_was_never_gone(memory_fleet, join):
    a, b, c = await memory_fleet.three()
    await join(f"{a.url}/ws/cars?user=ann")
    await join(f"{a.url}/ws/cars?user=bob")
    await eventually(lambda: len(calls([a], COMING)) == 2)
    memory_fleet.kill(a)
    await join(f"{b.url}/ws/cars?user=ann")
    await eventually(lambda: calls([b, c], GOING) == [(GOING, "bob")])
    await asyncio.sleep(LEASE)
    assert calls([b, c], COMING, GOING) == [(GOING, "bob")]


async def test_while_the_store_stands_still_nobody_dies(memory_fleet):
    sites = a, b, _c = await memory_fleet.three()
    told = Watching(b).told
    for site in sites:
        link(site).freeze()
    await asyncio.sleep(3 * LEASE)
    for site in sites:
        link(site).thaw()
    await asyncio.sleep(LEASE)
    assert told == []
    assert key(a).incarnation == 1


async def test_a_node_that_was_cut_off_is_reborn_and_its_users_were_gone(memory_fleet, join):
    sites = a, b, c = await memory_fleet.three()
    told = Watching(b).told
    await join(f"{a.url}/ws/cars?user=ann")
    both = await join(f"{a.url}/ws/cars?user=bob")
    await join(f"{b.url}/ws/cars?user=bob")
    gone = await join(f"{a.url}/ws/cars?user=eve")
    await eventually(lambda: len(calls(sites, "on_subscribe")) == 4)
    own = Watching(a).told
    link(a).cut()
    old = key(a)
    await eventually(lambda: len(calls([b, c], GOING)) == 2)
    assert set(calls([b, c], GOING)) == {(GOING, "ann"), (GOING, "eve")}
    await gone.close()
    await a.manager.listener.until("on_close")
    link(a).mend()
    await eventually(lambda: key(a).incarnation == 2)
    await eventually(lambda: calls([a], COMING).count((COMING, "ann")) == 2)
    await asyncio.sleep(2 * LEASE)
    assert calls([a], COMING).count((COMING, "bob")) == 1
    assert calls([a], COMING).count((COMING, "eve")) == 1
    assert calls(sites, GOING).count((GOING, "eve")) == 1
    assert online(sites) == {"ann": 1, "bob": 1, "eve": 0}
    assert [each for each in told if each[1].id == old.id] == [("died", old), ("appeared", key(a))]
    assert ("reborn", old) in own
    store = link(b).store
    assert {str(user.name) for user in store.holdings(key(a))} == {"ann", "bob"}
    assert not store.holdings(old)
    await both.close()
    await asyncio.sleep(0.1)
    assert online(sites)["bob"] == 1


async def test_a_store_that_comes_back_empty_makes_nobody_come_or_go(memory_fleet, join):
    sites = await memory_fleet.three()
    for site in sites:
        await join(f"{site.url}/ws/cars?user=ann")
    await join(f"{sites[0].url}/ws/cars?user=bob")
    await eventually(lambda: len(calls(sites, "on_subscribe")) == 4)
    before = calls(sites, COMING, GOING)
    store = link(sites[0]).store
    for table in (store._nodes, store._users, store._holdings):
        table.clear()
    await eventually(lambda: all(key(site).incarnation == 2 for site in sites))
    await eventually(lambda: len(store._users) == 2 and len(store._holdings) == 3)
    await asyncio.sleep(2 * LEASE)
    assert calls(sites, COMING, GOING) == before
    assert len(sites[0].server.nodes) == 3


@pytest.mark.parametrize("step", ["holdings", "release", "buried"])
async def test_who_buries_may_die_at_any_step(memory_fleet, join, step):
    a, b = await memory_fleet.start(), await memory_fleet.start()
    for user in ("ann", "bob"):
        await join(f"{a.url}/ws/cars?user={user}")
    await eventually(lambda: len(calls([a], COMING)) == 2)
    reached = asyncio.Event()

    async def never(*arguments):
        reached.set()
        await asyncio.Event().wait()

    setattr(link(b), step, never)
    memory_fleet.kill(a)
    async with asyncio.timeout(10):
        await reached.wait()
    c = await memory_fleet.start()
    memory_fleet.kill(b)
    store = link(c).store
    await eventually(lambda: not store._buriers and not store._users)
    told = calls([b, c], GOING)
    assert sorted(told) == [(GOING, "ann"), (GOING, "bob")]


async def test_a_store_that_sees_nodes_end_needs_no_lease(memory_fleet, join):
    a, b, c = await memory_fleet.three(lease=60)
    await join(f"{a.url}/ws/cars?user=ann")
    await a.manager.listener.until("on_subscribe")
    told = Watching(b).told
    memory_fleet.kill(a)
    link(b).store.end(key(a))
    for site in (b, c):
        site.server._node.on_gone(key(a))
    await eventually(lambda: calls([b, c], GOING) == [(GOING, "ann")])
    assert told == [("died", key(a))]


async def test_users_of_a_node_that_stops_have_time_to_come_back(memory_fleet, join):
    a, b, c = await memory_fleet.three(handover=1.5)
    told = Watching(b).told
    for user in ("ann", "bob"):
        await join(f"{a.url}/ws/cars?user={user}")
    await eventually(lambda: len(calls([a], COMING)) == 2)
    await memory_fleet.end(a)
    assert calls([a], GOING) == []
    await join(f"{c.url}/ws/cars?user=ann")
    assert told == []
    await asyncio.sleep(0.3)
    assert {node.id for node in b.server.nodes} == {key(b).id, key(c).id}
    assert calls([b, c], COMING, GOING) == []
    await eventually(lambda: calls([b, c], COMING, GOING) == [(GOING, "bob")])
    await asyncio.sleep(LEASE)
    assert calls([b, c], COMING, GOING) == [(GOING, "bob")]
    assert len(told) == 1
    assert not link(b).store._buriers


async def test_a_store_that_is_away_at_the_start_is_met_later(memory_fleet, join):
    a = await memory_fleet.start(lease=3)
    memory_fleet.make = lambda: Link(link(a).store, is_connected=False)
    b = await memory_fleet.start(lease=3)
    client = await join(f"{b.url}/ws/cars?user=ann")
    await b.manager.listener.until("on_subscribe")
    assert (b.server.is_connected, [node.is_self for node in b.server.nodes]) == (False, [True])
    link(b).mend()
    assert (await client.closed())[0] == 1012  # nobody knows whether she was logged out meanwhile
    client = await join(f"{b.url}/ws/cars?user=ann")
    await b.manager.listener.until("on_subscribe", 2)
    await eventually(lambda: ids(a) == ids(b) == {key(a).id, key(b).id})
    await eventually(lambda: link(a).store.holdings(key(b)))
    a.manager.send_to_user("ann", "hi")
    assert await client.receive() == "hi"
    a.manager.close_user("ann")
    assert await client.closed() == (4001, "logged out")
