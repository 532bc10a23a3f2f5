"""Several nodes, or workers, are one application."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from fastws.testing import running

from ..backplane.conftest import nats_server, redis_server  # noqa: F401  (fixtures)
from ..backplane.stores import STORES
from ..lib.fleet import Fleet
from ..lib.support import eventually
from .conftest import App, library, put_on


@pytest.fixture
async def start():
    """`await start(fleet, number)` are so many nodes."""
    async with AsyncExitStack() as stack:

        async def some(fleet, number, **settings):
            found = []
            for _ in range(number):
                server = fleet.server()
                listener = put_on(server, **settings)
                found.append(App(server, listener, await stack.enter_async_context(running(server))))
            await asyncio.gather(*[app.server._node.members.beat() for app in found])
            return found

        yield some


@pytest.fixture(params=["hub", "redis", "nats"])
async def fleet(request):
    async with STORES[request.param](request) as make:
        yield Fleet(make, f"pusher-{request.param}", lease=1.0)


def ids(app, channel="presence-a"):
    return sorted(app.listener.rooms._rooms[channel].users)


async def test_events_members_and_the_cache_are_those_of_all_nodes(fleet, start, dial_pusher):
    here, there = await start(fleet, 2)
    ann, bob = await dial_pusher(here), await dial_pusher(there)
    for wire in (ann, bob):
        await wire.subscribe("private-a")
    await there.call("trigger", "private-a", "said", {"no": 1}, ann.socket_id)
    await there.call("trigger", "private-a", "said", {"no": 2})
    assert await ann.receive() == ("said", "private-a", {"no": 2})
    assert [await bob.receive() for _ in range(2)] == [("said", "private-a", {"no": n}) for n in (1, 2)]
    await bob.send("client-hi", 1, channel="private-a")
    assert await ann.receive() == ("client-hi", "private-a", 1)

    await ann.join("presence-a", "ann", name="Ann")
    await eventually(lambda: here.listener.rooms._crowds._crowds["presence-a"].written)
    assert (await there.call("users_info", "presence-a"))["users"] == [{"id": "ann"}]
    assert (await there.call("channel_info", "presence-a", ["user_count"]))["user_count"] == 1
    room = await bob.join("presence-a", "bob", name="Bob")
    assert room["hash"] == {"ann": {"name": "Ann"}, "bob": {"name": "Bob"}}
    added = "pusher_internal:member_added", "presence-a", {"user_id": "bob", "user_info": {"name": "Bob"}}
    assert await ann.receive() == added
    phone = await dial_pusher(there)
    assert (await phone.join("presence-a", "ann", name="Ann"))["count"] == 2
    await ann.client.close()
    assert await bob.so_far() == []
    await phone.send("pusher:unsubscribe", {"channel": "presence-a"})
    assert await bob.receive() == ("pusher_internal:member_removed", "presence-a", {"user_id": "ann"})

    await here.call("trigger", "cache-a", "news", {"no": 1})
    await eventually(lambda: there.listener.cache.get("cache-a"))
    await bob.subscribe("cache-a")
    assert await bob.receive() == ("news", "cache-a", {"no": 1})

    await phone.send("pusher:signin", library().authenticate_user(phone.socket_id, {"id": "ann"}))
    assert (await phone.receive())[0] == "pusher:signin_success"
    await here.call("terminate_user_connections", "ann")
    assert (await phone.closed())[0] == 4009


async def test_members_of_a_node_that_dies_are_gone_after_a_lease(start, dial_pusher):
    fleet = Fleet.in_memory()
    here, there = await start(fleet, 2)
    ann, bob = await dial_pusher(here), await dial_pusher(there)
    await ann.join("presence-a", "ann")
    await bob.join("presence-a", "bob")
    await eventually(lambda: ids(here) == ids(there) == ["ann", "bob"])
    await ann.so_far()
    fleet.kill(there)
    assert await ann.receive() == ("pusher_internal:member_removed", "presence-a", {"user_id": "bob"})


async def test_two_who_wait_to_join_are_in_though_one_leaves_meanwhile(start, dial_pusher):
    here, there = await start(Fleet.in_memory(), 2)
    bob = await dial_pusher(there)
    await bob.join("presence-a", "bob")
    for _ in range(5):
        leaver, ann = await dial_pusher(here), await dial_pusher(here)
        signed = library().authenticate("presence-a", leaver.socket_id, {"user_id": "leaver"})
        await leaver.send("pusher:subscribe", {"channel": "presence-a", **signed})
        leaver.client.abort()
        assert "bob" in (await ann.join("presence-a", "ann"))["ids"]
        await eventually(lambda: "ann" in ids(there))
        await ann.client.close()
        await eventually(lambda: ids(there) == ["bob"])


async def test_nodes_tell_once_that_a_channel_is_occupied_or_vacated(fleet, backend, told, start, dial_pusher):
    settings = {"webhook_url": backend.url, "webhook_events": ("channel_occupied", "channel_vacated")}
    apps = await start(fleet, 3, **settings)
    wires = [await dial_pusher(app) for app in apps for _ in range(2)]
    expected = []
    for number in range(3):  # all at once, so that it is the log that decides
        channel = f"private-{number}"
        await asyncio.gather(*[wire.subscribe(channel) for wire in wires])
        expected.append({"name": "channel_occupied", "channel": channel})
        assert (await told(len(expected)))[-1] == expected[-1]
        for wire in wires:
            await wire.send("pusher:unsubscribe", {"channel": channel})
        expected.append({"name": "channel_vacated", "channel": channel})
        assert (await told(len(expected)))[-1] == expected[-1]
    crowds = [app.listener.occupancy._crowds for app in apps]
    await eventually(lambda: not any(each._crowds for each in crowds))
    assert await told(len(expected)) == expected
    # One leaves while others are there.
    await wires[0].subscribe("cars")
    await wires[2].subscribe("cars")
    await told(len(expected) + 1)
    await eventually(lambda: apps[0].listener.occupancy._written and apps[1].listener.occupancy._written)
    await wires[0].send("pusher:unsubscribe", {"channel": "cars"})
    await eventually(lambda: not apps[0].listener.occupancy._written)
    await wires[2].send("pusher:unsubscribe", {"channel": "cars"})
    expected += [{"name": name, "channel": "cars"} for name in ("channel_occupied", "channel_vacated")]
    assert await told(len(expected)) == expected
