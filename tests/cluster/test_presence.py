"""Who is there, on all nodes."""

import asyncio
import itertools
import json
import random
from datetime import timedelta
from urllib.parse import quote

import pytest

from ..lib.fleet import link, lose, stored
from ..lib.people import NEVER, People, notices
from ..lib.raw import TIMEOUT
from ..lib.support import eventually

CHANNEL = "cars"
LOG = f"$p:{CHANNEL}"
numbers = itertools.count()


@pytest.fixture
async def enter(join):
    """`await enter(site, user, channel)` is a client that is in the channel."""

    async def come(site, user, channel=CHANNEL):
        name = "" if user is None else f"?user={user}"
        number = str(next(numbers))
        client = await join(f"{site.url}/ws/{channel}{name}", headers={"X-Number": number})

        def ours():
            found = site.manager.connections.values()
            return next((ws for ws in found if ws.headers.get("x-number") == number and channel in ws.channels), None)

        await eventually(ours)
        client.ws = ours()
        await client.ping()
        return client

    return come


def devices(site, channel=CHANNEL):
    return {user: there.devices for user, there in site.manager.presence(channel).items()}


async def told(client, *expected):
    """These notices come next, in any order of those of one kind, and nothing else until now."""
    got = []
    async with asyncio.timeout(TIMEOUT):
        while len(got) < len(expected):
            got += await notices(client)
            await asyncio.sleep(0.001)
    got += await notices(client)
    assert sorted(got, key=str) == sorted(expected, key=str)


async def agree(sites, expected, channel=CHANNEL):
    """All nodes come to the same list."""
    await eventually(lambda: all(devices(site, channel) == expected for site in sites))
    lists = [site.manager.presence(channel) for site in sites]
    assert all(each == lists[0] for each in lists)


async def watching(fleet, number=2, listener=People, **options):
    sites = [await fleet.start(listener(), **options) for _ in range(number)]
    for site in sites:
        site.manager.watch_presence(CHANNEL)
    return sites


async def test_all_nodes_have_the_same_list(fleet, enter):
    sites = first, second, third = await watching(fleet, 3)
    await enter(first, "ann")
    await enter(second, "bob")
    await enter(second, "ann")
    await enter(third, None)
    await agree(sites, {"ann": 2, "bob": 1})
    since = [site.manager.presence(CHANNEL)["ann"].since for site in sites]
    assert max(since) - min(since) <= timedelta(seconds=0.02)  # the engine counts ticks of 10 ms
    assert max(since) <= sites[0].manager.presence(CHANNEL)["bob"].since + timedelta(seconds=0.02)


async def test_each_member_is_told_once_whatever_the_devices_and_nodes(fleet, enter):
    sites = first, second = await watching(fleet)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    bob = await enter(second, "bob")
    await told(bob, ("list", {"ann": 1, "bob": 1}))
    phone = await enter(first, "bob")
    tablet = await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 3})
    await told(ann, ("join", "bob"))
    await told(phone, ("list", {"ann": 1, "bob": 2}))
    for client in (bob, phone):
        await client.close()
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann)
    await tablet.close()
    await agree(sites, {"ann": 1})
    await told(ann, ("leave", "bob"))


async def test_who_is_on_another_node_may_be_hidden(fleet, enter):
    sites = first, second = await watching(fleet)
    for site in sites:
        site.manager.listener.blocks = {("bob", "ann")}
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    cat = await enter(first, "cat")
    await told(cat, ("list", {"ann": 1, "cat": 1}))
    bob = await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1, "cat": 1})
    await told(bob, ("list", {"ann": 1, "bob": 1, "cat": 1}))
    await told(ann, ("join", "cat"))
    await told(cat, ("join", "bob"))
    assert set(first.manager.presence(CHANNEL, viewer="ann")) == {"ann", "cat"}
    for site in sites:
        site.manager.listener.blocks = {("cat", "ann")}
        site.manager.life.company.sight.forget("bob")
        site.manager.life.company.notices.review("bob")
    await told(ann, ("join", "bob"))
    await bob.close()
    await agree(sites, {"ann": 1, "cat": 1})
    await told(ann, ("leave", "bob"))
    await told(cat, ("leave", "bob"))


async def test_whoever_is_back_on_another_node_in_time_never_left(fleet, enter):
    sites = first, second = await watching(fleet, offline_after=0.3)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    bob = await enter(first, "bob")
    since = first.manager.presence(CHANNEL)["bob"].since
    await bob.close()
    await agree(sites, {"ann": 1, "bob": 0})
    await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1})
    await asyncio.sleep(0.6)
    await agree(sites, {"ann": 1, "bob": 1})
    assert abs(second.manager.presence(CHANNEL)["bob"].since - since) < timedelta(seconds=0.1)
    await told(ann, ("join", "bob"))


async def test_whoever_comes_back_nowhere_leaves_everywhere(fleet, enter):
    sites = first, second = await watching(fleet, offline_after=0.3)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    bob = await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1})
    await bob.close()
    await agree(sites, {"ann": 1, "bob": 0})
    await agree(sites, {"ann": 1})
    await told(ann, ("join", "bob"), ("leave", "bob"))


async def test_the_people_of_a_dead_node_leave_once_it_is_known_dead(memory_fleet, enter):
    sites = first, second, third = await watching(memory_fleet, 3)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    await enter(second, "ann")
    await enter(second, "bob")
    await agree(sites, {"ann": 2, "bob": 1})
    cat = await enter(third, "cat")
    await agree(sites, {"ann": 2, "bob": 1, "cat": 1})
    await told(ann, ("join", "bob"), ("join", "cat"))
    await told(cat, ("list", {"ann": 2, "bob": 1, "cat": 1}))
    memory_fleet.kill(second)
    await agree([first, third], {"ann": 1, "cat": 1})
    await told(ann, ("leave", "bob"))
    await told(cat, ("leave", "bob"))
    late = await memory_fleet.start(People(), presence=["*"])
    await enter(late, "dan")
    await agree([first, third, late], {"ann": 1, "cat": 1, "dan": 1})


async def test_a_node_without_its_store_says_to_nobody_that_the_others_are_gone(memory_fleet, enter):
    sites = first, second = await watching(memory_fleet)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann, ("join", "bob"))
    link(first).cut()
    await enter(first, "cat")
    await asyncio.sleep(1.5)
    assert devices(first) == {"ann": 1, "bob": 1, "cat": 1}
    await told(ann, ("join", "cat"))


async def test_a_channel_without_its_store_has_a_list_of_its_own(memory_fleet, enter):
    first, second = [await memory_fleet.start(People(), presence=["*"], backplane_timeout=1) for _ in range(2)]
    for site in (first, second):
        site.manager.watch_presence(CHANNEL)
    bob = await enter(second, "bob")
    await told(bob, ("list", {"bob": 1}))
    link(first).cut()
    ann = await enter(first, "ann", "boats")
    first.manager.watch_presence("boats")
    eve = await enter(first, "eve", "boats")
    assert len(await ann.received()) == 2
    assert len(await eve.received()) == 1
    assert devices(first, "boats") == {"ann": 1, "eve": 1}
    cat = await enter(second, "cat", "boats")
    link(first).mend()
    await agree([first, second], {"ann": 1, "eve": 1, "cat": 1}, "boats")
    joins = await ann.received()
    assert [(notice["event"], notice["user"]) for notice in map(json.loads, joins)] == [("join", "cat")]
    await cat.close()
    await agree([first, second], {"ann": 1, "eve": 1}, "boats")


async def test_whoever_waits_for_a_list_gets_it_though_the_store_does_not_answer(memory_fleet, enter):
    site = await memory_fleet.start(People(), backplane_timeout=0.5)
    link(site).freeze()
    site.manager.watch_presence(CHANNEL)
    ann = await enter(site, "ann")
    await told(ann, ("list", {"ann": 1}))
    link(site).thaw()
    await agree([site], {"ann": 1})


async def test_a_node_that_was_taken_for_dead_comes_back_with_its_people(memory_fleet, enter):
    sites = first, second = await watching(memory_fleet)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    bob = await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann, ("join", "bob"))
    await told(bob, ("list", {"ann": 1, "bob": 1}))
    link(second).cut()
    await agree([first], {"ann": 1})
    await told(ann, ("leave", "bob"))
    assert devices(second) == {"ann": 1, "bob": 1}
    link(second).mend()
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann, ("join", "bob"))
    await told(bob)


async def test_a_rolling_restart_is_no_storm_of_leaves(fleet, enter):
    first, second = await watching(fleet, handover=1.0)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    others = [await enter(second, f"user-{number}") for number in range(20)]
    await agree([first, second], {"ann": 1, **{f"user-{number}": 1 for number in range(20)}})
    await told(ann, *(("join", f"user-{number}") for number in range(20)))
    stopping = asyncio.create_task(second.server.stop())
    for client in others:
        await client.closed()
    third = await fleet.start(People(), presence=["*"])
    for number in range(19):
        await enter(third, f"user-{number}")
    await stopping
    await agree([first, third], {"ann": 1, **{f"user-{number}": 1 for number in range(19)}})
    await told(ann, ("leave", "user-19"))


async def test_channels_of_the_option_are_known_though_nobody_watches(fleet, enter):
    sites = first, second = [await fleet.start(People(), presence=["ca*"]) for _ in range(2)]
    ann = await enter(first, "ann")
    await enter(second, "bob")
    await enter(first, "ann", "boats")
    await enter(second, "bob", "boats")
    await agree(sites, {"ann": 1, "bob": 1})
    assert devices(first, "boats") == {"ann": 1}
    assert devices(second, "boats") == {"bob": 1}
    assert await ann.received() == []


async def test_presence_from_the_store_for_who_is_not_there(fleet, enter):
    first, second = [await fleet.start(People(), presence=["ca*"]) for _ in range(2)]
    first.manager.listener.blocks = second.manager.listener.blocks = {("ann", "bob")}
    await enter(first, "ann")
    assert devices(second) == {}
    assert await second.manager.cluster.presence(CHANNEL) == first.manager.presence(CHANNEL)
    assert await second.manager.cluster.presence(CHANNEL, viewer="bob") == {}
    assert list(await second.manager.cluster.presence(CHANNEL, viewer="cat")) == ["ann"]


async def test_names_of_users(fleet, enter):
    class Typed(People):
        def on_handshake(self, request):
            request.user = json.loads(request.query["user"])

    sites = first, _ = await watching(fleet, listener=Typed)
    names = ["7", "#7", "$7", "a b.c 1", "", "é"]
    for name in names:
        await enter(first, quote(f'"{name}"'))
    await enter(first, "7")
    await agree(sites, {**dict.fromkeys(names, 1), 7: 1})


async def test_whatever_the_store_has_lost_is_written_anew_and_nobody_leaves(memory_fleet, enter, monkeypatch):
    monkeypatch.setattr("fastws.cluster.people.AFTER_LOSS_SECONDS", 0.3)
    sites = first, second = await watching(memory_fleet)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann, ("join", "bob"))
    lose(first, LOG)
    await eventually(lambda: stored(first, LOG) is not None and len(stored(first, LOG).values) == 2)
    await asyncio.sleep(0.6)
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann)
    cat = await enter(second, "cat")
    await told(ann, ("join", "cat"))
    await told(cat, ("list", {"ann": 1, "bob": 1, "cat": 1}))


async def test_what_dead_nodes_have_left_is_removed(memory_fleet, enter, monkeypatch):
    monkeypatch.setattr("fastws.cluster.people.TEND_SECONDS", (0.05, 0.1))
    monkeypatch.setattr("fastws.cluster.people.RENEW_SECONDS", 0.1)
    sites = first, second = await watching(memory_fleet)
    await enter(first, "ann")
    await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1})
    memory_fleet.kill(second)
    log = stored(first, LOG)
    assert len(log.values) == 2
    await eventually(lambda: len(log.values) == 1)
    top = log.top
    await eventually(lambda: log.top.offset > top.offset)  # it is renewed
    assert devices(first) == {"ann": 1}


async def test_nothing_is_followed_where_nobody_is(memory_fleet, enter):
    first = await memory_fleet.start(People(), presence=["*"])
    ann = await enter(first, "ann")
    first.manager.watch_presence(CHANNEL)
    first.manager.unwatch_presence(CHANNEL)
    assert devices(first) == {"ann": 1}
    log = stored(first, LOG)
    await ann.close()
    await eventually(lambda: log.values == {})
    await eventually(lambda: not first.manager.crowds._crowds)
    assert devices(first) == {}


async def test_unwatched_is_unwritten(fleet, enter):
    sites = first, second = await watching(fleet)
    ann = await enter(first, "ann")
    await told(ann, ("list", {"ann": 1}))
    await enter(second, "bob")
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann, ("join", "bob"))
    first.manager.unwatch_presence(CHANNEL)
    await eventually(lambda: devices(second) == {"bob": 1})
    assert devices(first) == {"ann": 1}
    first.manager.watch_presence(CHANNEL)
    await agree(sites, {"ann": 1, "bob": 1})
    await told(ann, ("list", {"ann": 1, "bob": 1}))


async def test_two_hundred_users_who_jump_leave_no_trace(fleet, enter):
    sites = await watching(fleet, 3, offline_after=NEVER)
    watcher = await enter(sites[0], "watcher")
    await told(watcher, ("list", {"watcher": 1}))
    names = [f"user-{number}" for number in range(200)]
    here = dict(zip(names, await asyncio.gather(*(enter(random.choice(sites), name) for name in names)), strict=True))
    await agree(sites, {"watcher": 1, **dict.fromkeys(names, 1)})
    await told(watcher, *(("join", name) for name in names))

    async def jump(name):
        for _ in range(5):
            await asyncio.sleep(random.random() / 10)
            if random.random() < 0.5:
                await here[name].close()
                here[name] = await enter(random.choice(sites), name)
            else:
                before, here[name] = here[name], await enter(random.choice(sites), name)
                await before.close()

    await asyncio.gather(*(jump(name) for name in names))
    await agree(sites, {"watcher": 1, **dict.fromkeys(names, 1)})
    await told(watcher)


async def test_notices_about_a_user_reach_those_who_may_see_that_user(fleet, enter):
    first, second = await watching(fleet)
    for site in (first, second):
        site.manager.listener.blocks = {("ann", "bob")}
    ann, tab = await enter(first, "ann"), await enter(second, "ann")
    bob, cat, dan = await enter(second, "bob"), await enter(second, "cat"), await enter(first, "dan")
    clients = (ann, tab, bob, cat, dan)
    await agree([first, second], {"ann": 2, "bob": 1, "cat": 1, "dan": 1})
    first.manager.notify(CHANNEL, "ann", "typing", to_self=False)
    first.manager.notify(CHANNEL, "ann", "kicked", exclude=[dan.ws, cat.ws.id])
    first.manager.broadcast(CHANNEL, "end")
    got = [[] for _ in clients]
    for messages, client in zip(got, clients, strict=True):
        while (message := await client.receive()) != "end":
            messages += [message] if message in ("typing", "kicked") else []
    assert got == [["kicked"], ["kicked"], [], ["typing"], ["typing"]]
