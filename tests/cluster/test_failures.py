"""What docs/failures.md says: nodes are processes, and Redis is killed, comes back older, or is not reached."""

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect

from fastws.v1.listener import PROTOCOL

from ..chaos.world import Gone, World
from ..lib.v1 import Client

YEARS = 10 * 365 * 86_400.0
LEASE = 2.0
PATIENCE = 30.0


@pytest.fixture
async def begin(tmp_path):
    """`await begin(**options)` is a world of processes that has begun."""
    async with AsyncExitStack() as stack:

        async def begin(**options):
            options = {"lease": LEASE, "backplane_timeout": 1.0, **options}
            return await stack.enter_async_context(World(tmp_path, **options))

        yield begin


@pytest.fixture
async def come():
    """`await come(node, user, channels)` is a client, and what it was told of each channel it brought a position of."""
    async with AsyncExitStack() as stack:

        async def come(node, user, **channels):
            ws = await stack.enter_async_context(connect(f"{node.url}?user={user}", subprotocols=[PROTOCOL]))
            client = Client(ws)
            channels = {name.replace("_", "-"): position for name, position in channels.items()}
            await client.send({"type": "hello", "version": 1, "channels": channels})
            client.told = []
            while len(client.told) < len(channels):  # who is there may be told in between
                frame = await client.receive()
                client.told += [frame] if frame["type"] == "subscribed" else []
            return client

        yield come


async def say(node, channel, count):
    """Publish, and return the last position."""
    for number in range(count):
        position = await node.ask("publish", channel=channel, message=number)
    return position


async def heard(client, count):
    """The next messages of logs, and whatever else is told of them."""
    found = []
    while len(found) < count:
        frame = await client.receive()
        if frame.get("type") in ("message", "subscribed"):
            found.append(frame)
    return found


async def until(is_true):
    """Wait until what a node is asked is so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Gone):
                if await is_true():
                    return
            await asyncio.sleep(0.05)


async def connected(world, is_so=True):
    async def are_they():
        return all([(await node.ask("stats"))["connected"] is is_so for node in world.nodes])

    await until(are_they)


async def test_a_store_that_comes_back_older_is_found_out_by_whoever_saw_more(begin, come):
    world = await begin(is_lossy=True)
    a, b, c = world.nodes
    ann = await come(a, "ann", room_0=None)
    at_100 = await say(b, "room-0", 100)
    quiet_at_100 = await say(c, "room-1", 100)
    world.redis.say("SAVE")
    at_120 = await say(b, "room-0", 20)
    await say(c, "room-1", 20)  # which nobody hears
    assert (await heard(ann, 120))[-1]["position"] == at_120
    world.redis.kill()
    await connected(world, False)
    world.redis.start()
    await connected(world)
    assert (await heard(ann, 1))[0]["reason"] == "unknown"
    await say(b, "room-0", 30)
    assert [frame["message"] for frame in await heard(ann, 30)] == list(range(30))

    for position in (at_120, at_100):
        (told,) = (await come(c, "bob", room_0=position)).told
        assert (told["recovered"], told["count"]) == (False, 0)
    told = []

    async def is_found_out():
        told[:] = (await come(a, "carl", room_1=quiet_at_100)).told
        return not told[0]["recovered"]

    await until(is_found_out)  # its publisher looks after it is connected again
    assert told[0]["reason"] in ("unknown", "trimmed")


async def test_without_its_store_each_node_goes_on_alone_and_says_what_it_cannot_do(begin, come):
    world = await begin(nodes=2)
    a, b = world.nodes
    ann, bob = await come(a, "ann", plain=None, room_0=None), await come(b, "bob", plain=None, room_0=None)
    world.redis.kill()
    await connected(world, False)
    began = time.monotonic()
    with pytest.raises(Gone, match=r"Redis has not answered|away|stored"):
        await a.ask("publish", channel="room-0", message="who hears?")
    assert 0.5 < time.monotonic() - began < 10
    assert await a.ask("broadcast", channel="plain", message={"only": "here"}) == 1
    assert (await ann.receive())["only"] == "here"
    stats = await a.ask("stats")
    assert stats["lost"] >= 1
    assert stats["connected"] is False
    world.redis.start()
    await connected(world)
    await a.ask("broadcast", channel="plain", message={"all": "again"})
    await a.ask("publish", channel="room-0", message="back")
    later = []
    while {"all": "again"} not in later or "back" not in [frame.get("message") for frame in later]:
        later.append(await bob.receive())
    assert {"only": "here"} not in later
    assert [frame for frame in later if frame.get("type") == "subscribed"] == []


async def test_a_log_out_reaches_a_node_that_was_cut_off_once_it_is_back(begin, come):
    world = await begin(nodes=2)
    a, b = world.nodes
    ann = await come(b, "ann", room_0=None)
    b.relay.freeze()
    await a.ask("close_user", user="ann")
    position = await say(a, "room-0", 5)
    await asyncio.sleep(1.5 * LEASE)
    assert await b.ask("users") == ["ann"]
    b.relay.thaw()
    async with asyncio.timeout(PATIENCE):
        assert await ann.closed() == (4001, "logged out")
    (told,) = (await come(b, "bob", room_0=position)).told
    assert told["recovered"]


@pytest.mark.parametrize("seconds", [0.5 * LEASE, 2.5 * LEASE])
async def test_a_node_that_stood_still_gives_its_clients_all_in_order(begin, come, seconds):
    world = await begin(nodes=2)
    a, b = world.nodes
    ann = await come(b, "ann", room_0=None)
    await say(a, "room-0", 3)
    b.pause()
    await say(a, "room-0", 20)
    await asyncio.sleep(seconds)
    b.go_on()
    frames = await heard(ann, 23)
    assert [frame["message"] for frame in frames] == [*range(3), *range(20)]


async def test_nodes_whose_clocks_are_wrong_by_years_are_as_good_as_any(begin, come):
    world = await begin(clocks=[0.0, YEARS, -YEARS])
    clients = [await come(node, f"user-{node.name}", room_0=None, lobby=None) for node in world.nodes]
    for node in world.nodes:
        middle = await say(node, "room-0", 3)
    histories = [await heard(client, 9) for client in clients]
    positions = [[frame["position"] for frame in history] for history in histories]
    assert positions[0] == positions[1] == positions[2]
    await say(world.nodes[0], "room-0", 4)
    for node in world.nodes:
        (told,) = (await come(node, f"user-{node.name}", room_0=middle)).told
        assert (told["recovered"], told["count"]) == (True, 4)
    await asyncio.sleep(1.5 * LEASE)
    everybody = {f"user-{node.name}" for node in world.nodes}
    for node in world.nodes:
        assert set(await node.ask("presence", channel="lobby")) == everybody
    assert [call for call in world.online() if call[1] == "offline"] == []
