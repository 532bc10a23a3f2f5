"""The demo's chat on three nodes, each a process, with Redis between them."""

import asyncio
import contextlib
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect

from ..lib.chat import Client, log_in, post
from ..lib.demos import demos
from ..lib.redis import RedisServer


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def nodes(redis):
    with demos(redis, 3, "--lease", "1.5", "--drain-rate", "0") as nodes:
        yield nodes


@pytest.fixture
async def join():
    """`await join(node, user, channel)` is a tab that has the list of its channel."""
    async with contextlib.AsyncExitStack() as sockets:

        async def enter(node, user, channel="cars", cookie=None, channels=None):
            cookie = cookie or await log_in(node, user)
            url = f"ws://127.0.0.1:{node.port}/ws/chat/{quote(channel, safe='')}"
            socket = await sockets.enter_async_context(connect(url, additional_headers={"Cookie": cookie}))
            client = Client(socket, cookie)
            await client.send("hello", version=1, channels=channels or {})
            client.missed = []
            while (frame := await client.receive())["type"] != "presence":
                client.missed += [frame["message"]] if frame["type"] == "message" else []
            client.list = sorted(member["user"] for member in frame["users"])
            return client

        yield enter


async def test_people_on_three_nodes_are_in_one_chat(nodes, join):
    first, second, third = nodes
    ann = await join(first, "ann")
    bob = await join(second, "bob")
    cid = await join(third, "cid")
    assert (ann.list, bob.list, cid.list) == (["ann"], ["ann", "bob"], ["ann", "bob", "cid"])
    await ann.joined("bob")
    await ann.joined("cid")
    await ann.send("publish", channel="cars", message="hello")
    for client in (ann, bob, cid):
        assert (await client.until("message"))["message"] == "hello"
    await cid.send("typing", channel="cars")
    assert (await ann.until("typing"))["user"] == "cid"
    await ann.send("whisper", channel="cars", message="psst", to=["cid"])
    for client in (ann, cid):
        assert (await client.until("whisper"))["to"] == ["cid"]
    assert [frame["type"] for frame in await bob.drained() if frame["type"] == "whisper"] == []


async def test_tabs_of_a_user_are_in_the_same_channels_on_whatever_node(nodes, join):
    first, second, third = nodes
    ann, phone = await join(first, "ann"), await join(second, "ann")
    await ann.send("subscribe", channel="boats")
    await phone.until("subscribed", channel="boats")
    tablet = await join(third, "ann")
    await tablet.until("subscribed", channel="boats")
    await tablet.send("unsubscribe", channel="cars")
    for tab in (ann, phone):
        await tab.until("unsubscribed", channel="cars")
    bob = await join(second, "bob")
    await bob.call("invite", channel="cars", user="ann")
    for tab in (ann, phone, tablet):
        await tab.until("subscribed", channel="cars")
        assert (await tab.told("invite"))["by"] == "bob"
    await ann.call("kick", channel="cars", user="bob")
    assert (await bob.told("kick"))["by"] == "ann"
    await bob.until("unsubscribed", channel="cars")
    assert (await ann.refused("invite", channel="cars", user="nobody"))[0] == "not_online"


async def test_a_block_hides_on_all_nodes(nodes, join):
    first, second, third = nodes
    ann, bob, cid = await join(first, "ann"), await join(second, "bob"), await join(third, "cid")
    phone = await join(third, "ann")
    await ann.call("block", user="bob")
    assert await phone.told("blocked") == {"event": "blocked", "users": ["bob"]}
    await bob.departed("ann")
    late = await join(third, "bob")
    assert late.list == ["bob", "cid"]
    assert (await bob.refused("whisper", channel="cars", message="psst", to=["ann"]))[0] == "no_recipient"
    await phone.call("unblock", user="bob")
    await bob.joined("ann")
    await late.joined("ann")
    assert [frame for frame in await cid.drained() if frame.get("user") == "ann"] == []


async def test_whoever_logs_out_is_out_on_all_nodes(nodes, join):
    first, second, third = nodes
    ann = await join(first, "ann")
    tab = await join(second, "ann", cookie=ann.cookie)
    await post(third, "/logout", None, ann.cookie)
    for client in (ann, tab):
        assert (await client.close_code())[0] == 4001
    for node in nodes:
        with pytest.raises(Exception, match="401"):
            await join(node, "ann", cookie=ann.cookie)


async def test_a_node_that_is_killed_leaves_nobody_behind_and_nobody_misses_a_message(nodes, join):
    first, second, third = nodes
    watcher, other = await join(second, "watcher"), await join(third, "other")
    await watcher.joined("other")
    names = [f"user-{number}" for number in range(30)]
    here = [await join(first, name) for name in names]
    for tab in (watcher, other):
        for name in names:
            await tab.joined(name)
    await watcher.send("publish", channel="cars", message="before")
    seen = [(await client.until("message"))["position"] for client in here]
    first.kill()
    await watcher.send("publish", channel="cars", message="meanwhile")
    back = await asyncio.gather(
        *(
            join((second, third)[number % 2], name, cookie=here[number].cookie, channels={"cars": seen[number]})
            for number, name in enumerate(names[:20])
        )
    )
    for tab in (watcher, other):  # each node finds it out for itself
        gone = {(await tab.until("presence", event="leave"))["user"] for _ in names[20:]}
        assert gone == set(names[20:])
    late = await join(third, "late")
    assert late.list == sorted(["late", "other", "watcher", *names[:20]])
    for tab in (watcher, other):
        await tab.joined("late")
        assert [frame for frame in await tab.drained() if frame["type"] == "presence"] == []
    assert [tab.missed for tab in back] == [["meanwhile"]] * 20


async def test_a_rolling_restart_is_a_storm_of_nothing(nodes, join):
    first, second, third = nodes
    watcher = await join(third, "watcher")
    names = [f"user-{number}" for number in range(20)]
    here = [await join(first, name) for name in names]
    for name in names:
        await watcher.joined(name)
    for client in here:
        await client.drained()
    stopping = asyncio.create_task(asyncio.to_thread(first.stop))
    for client in here:
        assert (await client.close_code())[0] == 1001
    for client, name in zip(here, names, strict=True):
        await join(second, name, cookie=client.cookie)
    await stopping
    await asyncio.sleep(7)  # longer than users have to come back
    assert [frame for frame in await watcher.drained() if frame["type"] == "presence"] == []
    assert (await join(third, "late")).list == sorted(["late", "watcher", *names])
