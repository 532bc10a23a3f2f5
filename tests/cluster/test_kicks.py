"""Kicks and log-outs on several nodes: they reach everybody, once, or those who cannot know close all."""

import asyncio

import pytest

from fastws import BackplaneError
from fastws.cluster.kicks import kicks_log
from fastws.testing import Refused

from ..lib.fleet import Login, calls, link
from ..lib.support import eventually

LOG = ("/ws/{channel}", "$kicks")


class SlowLogin(Login):
    """A handshake that waits."""

    def __init__(self):
        super().__init__()
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def on_handshake(self, request):
        super().on_handshake(request)
        self.asked.set()
        await self.answer.wait()


async def enter(join, *places):
    """Clients of (site, channel, user), all of them subscribed."""
    clients = []
    for site, channel, user in places:
        times = len(site.manager.listener.of("on_subscribe")) + 1
        clients.append(await join(f"{site.url}/ws/{channel}?user={user}"))
        await site.manager.listener.until("on_subscribe", times)
    return clients


async def test_a_log_out_reaches_all_nodes_and_nobody_else(fleet, join):
    a, b, c = await fleet.three()
    ann_a, ann_b, ann_c, bob, number = await enter(
        join, (a, "x", "ann"), (b, "x", "ann"), (c, "y", "ann"), (b, "x", "bob"), (c, "x", 7)
    )
    assert a.manager.close_user("ann", 4001, "bye") == 1
    await a.manager.flush()
    for client in (ann_a, ann_b, ann_c):
        assert await client.closed() == (4001, "bye")
    c.manager.close_user(7)
    assert await number.closed() == (4001, "logged out")
    assert await bob.received() == []
    assert list(b.manager.users) == ["bob"]


async def test_users_join_and_leave_channels_on_all_nodes(fleet, join):
    a, b, c = await fleet.three()
    _, ann_b, ann_c = await enter(join, (a, "x", "bob"), (b, "x", "ann"), (c, "y", "ann"))
    assert a.manager.subscribe_user("ann", "news") == 0
    await eventually(lambda: all(site.manager.channels.get("news") for site in (b, c)))
    for site in (b, c):
        listening = site.manager.listening("news")
        if listening is not None:
            await listening
    a.manager.broadcast("news", "hi")
    assert [await each.receive() for each in (ann_b, ann_c)] == ["hi"] * 2
    a.manager.unsubscribe_user("ann", "news")
    await eventually(lambda: not any("news" in site.manager.channels for site in (b, c)))
    assert "x" in b.manager.channels


async def test_can_see_is_asked_again_on_all_nodes(fleet):
    sites = a, b, c = await fleet.three()
    hidden = set()
    for site in sites:
        site.manager.life.company.sight._can_see = lambda viewer, user: user not in hidden
        assert site.manager.sees("ann", "bob")
    hidden.add("bob")
    a.manager.visibility_changed("bob")
    await eventually(lambda: not any(site.manager.sees("ann", "bob") for site in (a, b, c)))


async def test_whoever_said_it_does_it_once(fleet, join):
    """Who logs in again right after the log-out stays."""
    a, b = await fleet.start(), await fleet.start()
    await enter(join, (b, "x", "ann"))
    a.manager.close_user("ann")
    (again,) = await enter(join, (a, "x", "ann"))
    await a.manager.flush()
    await eventually(lambda: not b.manager.users)
    assert await again.received() == []


async def test_a_handshake_that_waits_is_refused(memory_fleet, join):
    a, b = await memory_fleet.start(), await memory_fleet.start(SlowLogin())
    waiting = asyncio.ensure_future(join(f"{b.url}/ws/x?user=ann"))
    await b.manager.listener.asked.wait()
    a.manager.close_user("ann")
    await a.manager.flush()
    b.manager.listener.answer.set()
    with pytest.raises(Refused) as refused:
        await waiting
    assert refused.value.status == 401


async def test_a_log_out_behind_a_frozen_link_comes_when_it_thaws(memory_fleet, join):
    a, b = await memory_fleet.start(lease=30), await memory_fleet.start(lease=30)
    ann, bob = await enter(join, (b, "x", "ann"), (b, "x", "bob"))
    link(b).freeze()
    a.manager.close_user("ann")
    await a.manager.flush()
    assert await ann.received() == []
    link(b).thaw()
    assert await ann.closed() == (4001, "logged out")
    assert await bob.received() == []


async def test_a_log_out_while_the_store_is_away_is_said_when_it_is_back(memory_fleet, join):
    a, b = await memory_fleet.start(lease=30), await memory_fleet.start(lease=30)
    here, there = await enter(join, (a, "x", "ann"), (b, "x", "ann"))
    link(a).cut()
    assert a.manager.close_user("ann") == 1
    assert await here.closed() == (4001, "logged out")
    with pytest.raises(BackplaneError):
        await a.manager.flush()
    assert await there.received() == []
    link(a).mend()
    await a.manager.flush()
    assert await there.closed() == (4001, "logged out")
    assert len(link(a).store._logs[LOG].records) == 1


async def test_a_kick_that_got_lost_is_found_with_the_next_beat(memory_fleet, join):
    a, b = await memory_fleet.start(), await memory_fleet.start()
    (ann,) = await enter(join, (b, "x", "ann"))
    followers = link(a).store._followers[LOG]
    deaf = followers.pop(link(b))
    a.manager.close_user("ann")
    followers[link(b)] = deaf
    assert await ann.closed() == (4001, "logged out")


@pytest.mark.parametrize("was_said", [True, False])
async def test_kicks_that_the_store_has_lost_are_appended_again(memory_fleet, join, was_said):
    a, b, c = await memory_fleet.three(lease=30)
    ann, bob, eve = await enter(join, (c, "x", "ann"), (c, "x", "bob"), (b, "x", "eve"))
    if was_said:
        a.manager.close_user("nobody")
        await eventually(lambda: c.server._node._kick_followers[0].cursor.offset == 1)
    link(c).freeze()
    a.manager.close_user("ann")
    b.manager.close_user("bob")
    await a.manager.flush()
    await b.manager.flush()
    store = link(a).store
    del store._logs[LOG]  # it comes back empty
    for site in (a, b):
        await site.server._node.on_beat()
    await eventually(lambda: len(store._logs[LOG].records) >= 2 + was_said)
    link(c).thaw()
    assert await ann.closed() == (4001, "logged out")
    assert await bob.closed() == (4001, "logged out")
    assert await eve.received() == []
    await asyncio.sleep(0.1)
    payloads = [record.payload for record in store._logs[LOG].records]
    assert len(payloads) == len(set(payloads)) == 2 + was_said


@pytest.mark.parametrize("what", ["trimmed", "empty for long"])
async def test_a_node_that_cannot_know_what_it_missed_closes_all(memory_fleet, join, what):
    a, b = await memory_fleet.start(lease=30), await memory_fleet.start(lease=30, drain_rate=0)
    stays, goes, goes_too = await enter(join, (a, "x", "ann"), (b, "x", "ann"), (b, "x", "bob"))
    a.manager.close_user("nobody")
    await a.manager.flush()
    await eventually(lambda: b.server._node._kick_followers[0].cursor.offset == 1)
    link(b).cut()
    store = link(a).store
    if what == "trimmed":
        for _ in range(10_002):
            store.append(kicks_log("/ws/{channel}"), b'{"id":"x","do":"?","with":[]}', None, False, None)
    else:
        del store._logs[LOG]
        b.manager._kicks._known -= 120
    link(b).mend()
    for client in (goes, goes_too):
        assert (await client.closed())[0] == 1012
    assert await stays.received() == []


async def test_a_node_that_was_away_for_short_closes_nobody(memory_fleet, join):
    a, b = await memory_fleet.start(lease=30), await memory_fleet.start(lease=30)
    stays, goes = await enter(join, (b, "x", "ann"), (b, "x", "bob"))
    link(b).cut()
    a.manager.close_user("bob")
    await asyncio.sleep(0.2)
    link(b).mend()
    assert await goes.closed() == (4001, "logged out")
    assert await stays.received() == []


async def test_a_degraded_node_closes_everybody_and_lets_nobody_in(memory_fleet, join):
    a, b = await memory_fleet.start(degraded="close", drain_rate=0), await memory_fleet.start()
    goes, stays = await enter(join, (a, "x", "ann"), (b, "x", "bob"))
    link(a).cut()
    link(b).cut()
    assert (await goes.closed())[0] == 1012
    with pytest.raises(Refused) as refused:
        await join(f"{a.url}/ws/x?user=ann")
    assert refused.value.status == 503
    link(a).mend()
    await eventually(lambda: not a.server._node.members.is_cut_off)
    await enter(join, (a, "x", "ann"))
    assert await stays.received() == []


async def test_without_a_backplane_flush_has_nothing_to_wait_for(serve):
    site = await serve()
    await site.manager.flush()


async def test_who_slept_does_what_was_missed_before_it_handles_messages(memory_fleet, join):
    a, b = await memory_fleet.start(lease=1), await memory_fleet.start(lease=1)
    ann, bob = await enter(join, (b, "x", "ann"), (b, "x", "bob"))
    followers = link(a).store._followers[LOG]
    deaf = followers.pop(link(b))
    a.manager.close_user("ann")
    b.server._node.members._turned -= 60  # as if the loop had not turned
    b.server._node.members.awake_until -= 60
    await ann.send("from ann")
    await bob.send("from bob")
    assert await b.manager.listener.until("on_message") == ("from bob",)
    assert await ann.closed() == (4001, "logged out")
    followers[link(b)] = deaf
    assert calls([b], "on_message") == [("on_message", "from bob")]


async def test_a_log_of_kicks_that_has_expired_closes_nobody_and_brings_nothing_back(memory_fleet, join):
    a, b = await memory_fleet.start(), await memory_fleet.start()
    (ann,) = await enter(join, (b, "x", "ann"))
    a.manager.close_user("bob")
    await a.manager.flush()
    for site in (a, b):
        kicks = site.manager._kicks
        kicks._seen = type(kicks._seen)((name, (when - 3600, payload)) for name, (when, payload) in kicks._seen.items())
    store = link(a).store
    del store._logs[LOG]  # a day later
    for site in (a, b):
        await site.server._node.members.beat()
    await eventually(lambda: all(site.server._node._kick_followers[0].is_ready for site in (a, b)))
    (bob,) = await enter(join, (await memory_fleet.start(), "x", "bob"))
    assert [await each.received() for each in (ann, bob)] == [[], []]
    assert not store._logs[LOG].records
    a.manager.close_user("ann")
    assert await ann.closed() == (4001, "logged out")


async def test_on_a_wrong_thread_nothing_is_said_anywhere(memory_fleet, join):
    a, b = await memory_fleet.start(), await memory_fleet.start()
    (ann,) = await enter(join, (b, "x", "ann"))
    (name,) = b.manager.users["ann"]
    for call in (
        lambda: a.manager.send_to_user("ann", "hi"),
        lambda: a.manager.send([name], "hi"),
        lambda: a.manager.close_user("ann"),
        lambda: a.manager.broadcast("x", "hi"),
    ):
        with pytest.raises(RuntimeError, match="thread"):
            await asyncio.to_thread(call)
    assert await ann.received() == []
