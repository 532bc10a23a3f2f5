"""Users of several nodes: online once, offline once, and reached wherever they are."""

import asyncio
import random

import pytest

from fastws.testing import Refused

from ..lib.fleet import calls, link, online
from ..lib.support import eventually

COMING, GOING = "on_user_online", "on_user_offline"


async def test_a_user_is_online_once_and_offline_once(fleet, join):
    a, b, _ = sites = await fleet.three()
    first = await join(f"{a.url}/ws/cars?user=ann")
    await a.manager.listener.until("on_subscribe")
    second = await join(f"{b.url}/ws/cars?user=ann")
    await b.manager.listener.until("on_subscribe")
    assert calls(sites, COMING, GOING) == [(COMING, "ann")]
    await first.close()
    await a.manager.listener.until("on_close")
    await asyncio.sleep(0.1)
    assert calls(sites, GOING) == []
    await second.close()
    assert await b.manager.listener.until(GOING) == ("ann",)
    assert calls(sites, COMING, GOING) == [(COMING, "ann"), (GOING, "ann")]


async def test_of_two_who_come_at_once_one_is_first_and_one_is_last(fleet, join):
    sites = await fleet.three()
    for number in range(1, 11):
        both = await asyncio.gather(*[join(f"{site.url}/ws/cars?user={number}") for site in sites[:2]])
        await eventually(lambda number=number: len(calls(sites, "on_subscribe")) == 2 * number)
        assert calls(sites, COMING).count((COMING, number)) == 1
        await asyncio.gather(*[client.close() for client in both])
        await eventually(lambda number=number: (GOING, number) in calls(sites, GOING))
    assert len(calls(sites, COMING)) == len(calls(sites, GOING)) == 10


def listening_to(sites):
    """Each call of both handlers, in the order in which they were made, over all nodes."""
    told = []
    for site in sites:
        for name in (COMING, GOING):
            site.manager.life._handlers[name] = lambda user, name=name: told.append((user, name))
    return told


async def jump(sites, join, user, luck):
    """Come and go a few times, on any nodes, often on two at once."""
    for _ in range(6):
        clients = [await join(f"{luck.choice(sites).url}/ws/cars?user={user}") for _ in range(luck.choice((1, 2)))]
        await asyncio.sleep(luck.random() / 50)
        await asyncio.gather(*[client.close() for client in clients])


def times(told, user, name):
    return told.count((user, name))


async def test_users_who_jump_between_nodes_are_online_as_often_as_offline(fleet, join):
    sites = await fleet.three(offline_after=0)
    told, users, luck = listening_to(sites), [f"user{number}" for number in range(20)], random.Random(4711)
    await asyncio.gather(*[jump(sites, join, user, luck) for user in users])
    await eventually(lambda: not any(site.manager.connections for site in sites))
    await eventually(lambda: all(times(told, user, COMING) == times(told, user, GOING) > 0 for user in users))


async def test_a_user_who_jumps_between_nodes_is_online_and_offline_in_turn(memory_fleet, join):
    """Where the store answers at once, the calls of several nodes come in its order."""
    sites = await memory_fleet.three(offline_after=0)
    told, users, luck = listening_to(sites), [f"user{number}" for number in range(30)], random.Random(815)
    await asyncio.gather(*[jump(sites, join, user, luck) for user in users])
    await eventually(lambda: not any(site.manager.connections for site in sites))
    await eventually(lambda: all(times(told, user, COMING) == times(told, user, GOING) > 0 for user in users))
    for user in users:
        heard = [name for each, name in told if each == user]
        assert heard == [COMING, GOING] * (len(heard) // 2)


async def test_messages_reach_users_and_ids_on_other_nodes_and_nobody_else(fleet, join):
    a, b, c = await fleet.three()
    ann_b, ann_c = await join(f"{b.url}/ws/cars?user=ann"), await join(f"{c.url}/ws/bikes?user=ann")
    bob = await join(f"{b.url}/ws/cars?user=bob")
    seven = await join(f"{a.url}/ws/cars?user=7")
    for site, times in ((a, 1), (b, 2), (c, 1)):
        await site.manager.listener.until("on_subscribe", times)
    assert a.manager.send_to_user("ann", "hi ann") == 0
    assert [await each.receive() for each in (ann_b, ann_c)] == ["hi ann"] * 2
    b.manager.send_to_user([7, "bob"], {"n": 1})
    assert [await each.receive() for each in (seven, bob)] == ['{"n":1}'] * 2
    (id_c,) = c.manager.users["ann"]
    (id_b,) = b.manager.users["ann"]
    a.manager.send_to_user("ann", b"\0", exclude=id_c)
    assert await ann_b.receive() == b"\0"
    assert a.manager.send([id_c, a.manager.users[7][0], "nobody", "0123456789-5"], "by id") == 1
    assert [await each.receive() for each in (ann_c, seven)] == ["by id"] * 2
    a.manager.send([id_b, id_c], "last")
    assert [await each.receive() for each in (ann_b, ann_c)] == ["last"] * 2
    a.manager.send_to_user(["ann", "bob", 7], "end")
    for each in (ann_b, ann_c, bob, seven):
        assert await each.receive() == "end"
        assert await each.received() == []


async def test_users_of_endpoints_with_the_same_names_are_others(fleet, join):
    b = await fleet.start()
    await join(f"{b.url}/ws/cars?user=ann")
    await b.manager.listener.until("on_subscribe")
    other = await fleet.start(path="/other/{channel}")
    await join(f"{other.url}/other/cars?user=ann")
    await other.manager.listener.until("on_subscribe")
    assert calls([b, other], COMING) == [(COMING, "ann")] * 2
    other.manager.close_user("ann")
    await other.manager.flush()
    await asyncio.sleep(0.2)
    assert "ann" in b.manager.users


@pytest.mark.parametrize("user", [1.5, ("a", "b"), b"ann", True])
async def test_a_user_that_cannot_cross_nodes_is_a_type_error(memory_fleet, join, user):
    site = await memory_fleet.start()
    for call in (site.manager.close_user, site.manager.visibility_changed):
        with pytest.raises(TypeError, match="backplane"):
            call(user)
    with pytest.raises(TypeError, match="backplane"):
        site.manager.send_to_user([user], "hi")
    site.manager.life._handlers["on_handshake"] = lambda request: setattr(request, "user", user)
    with pytest.raises(Refused) as refused:
        await join(f"{site.url}/ws/cars")
    assert refused.value.status == 500


async def test_a_handshake_waits_at_most_two_seconds_for_the_store(memory_fleet, join):
    a, b = await memory_fleet.start(lease=30), await memory_fleet.start(lease=30)
    link(a).freeze()
    client = await join(f"{a.url}/ws/cars?user=ann")
    async with asyncio.timeout(10):
        await a.manager.listener.until(COMING)
    link(a).thaw()
    await eventually(lambda: link(a).store._users)
    await join(f"{b.url}/ws/cars?user=ann")
    await b.manager.listener.until("on_subscribe")
    assert calls([b], COMING) == []
    await client.close()
    await a.manager.listener.until("on_close")
    await asyncio.sleep(0.1)
    assert calls([a, b], GOING) == []


async def test_who_goes_while_the_store_is_away_is_offline_when_it_is_back(memory_fleet, join):
    a, b = await memory_fleet.start(lease=30), await memory_fleet.start(lease=30)
    clients = [await join(f"{site.url}/ws/cars?user=ann") for site in (a, b)]
    await eventually(lambda: len(calls([a, b], "on_subscribe")) == 2)
    link(a).cut()
    await clients[0].close()
    await clients[1].close()
    await a.manager.listener.until("on_close")
    await b.manager.listener.until("on_close")
    await asyncio.sleep(0.1)
    assert calls([a, b], GOING) == []
    link(a).mend()
    await eventually(lambda: online([a, b]) == {"ann": 0})
    assert calls([a, b], "on_backplane") == [("on_backplane", each) for each in (True, False, True, True)]


async def test_who_is_back_before_the_store_was_never_away(memory_fleet, join):
    a = await memory_fleet.start(lease=30)
    client = await join(f"{a.url}/ws/cars?user=ann")
    await a.manager.listener.until("on_subscribe")
    link(a).cut()
    await client.close()
    await a.manager.listener.until("on_close")
    await join(f"{a.url}/ws/cars?user=ann")
    await a.manager.listener.until("on_subscribe", 2)
    link(a).mend()
    await a.manager.flush()
    assert calls([a], COMING, GOING) == [(COMING, "ann")]


async def test_one_node_alone_calls_as_without_a_backplane(memory_fleet, join):
    site = await memory_fleet.start()
    await join(f"{site.url}/ws/cars?user=ann")
    await site.manager.listener.until("on_subscribe")
    await memory_fleet.end(site)
    assert calls([site], COMING, GOING) == [(COMING, "ann"), (GOING, "ann")]
    store = link(site).store
    assert not store._users
    assert not store._nodes
