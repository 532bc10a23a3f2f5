"""fastws.v1 between people on different nodes."""

from contextlib import AsyncExitStack

import pytest

from ..lib.support import eventually
from ..lib.v1 import OPEN, Named, rules, serving

WITH_PRESENCE = {"pattern": "cars*", "presence": True, **OPEN}


@pytest.fixture
async def pair(fleet):
    """`await pair(rule)` are two nodes that serve fastws.v1."""
    async with AsyncExitStack() as sites:

        async def start(rule, **options):
            found = []
            for _ in range(2):
                server = fleet.server(**options)
                found.append(await sites.enter_async_context(serving(Named(rules(rule)), server=server)))
            return found

        yield start


def devices(site, channel="cars"):
    return {user: there.devices for user, there in site.manager.presence(channel).items()}


async def until(client, kind, **fields):
    """The next frame of that type with those fields."""
    while not {"type": kind, **fields}.items() <= (frame := await client.receive()).items():
        pass
    return frame


async def test_a_whisper_reaches_who_is_on_another_node(pair):
    first, second = await pair(WITH_PRESENCE)
    ann, bob, tab, cat = [
        await site.join(name, "cars")
        for site, name in ((first, "ann"), (second, "bob"), (second, "ann"), (first, "cat"))
    ]
    await eventually(lambda: devices(first) == devices(second) == {"ann": 2, "bob": 1, "cat": 1})
    await ann.send({"type": "whisper", "id": 1, "channel": "cars", "message": "psst", "to": ["bob", "nobody"]})
    for client in (bob, tab):
        whisper = await until(client, "whisper")
        assert (whisper["message"], whisper["from"]["user"], whisper["to"]) == ("psst", "ann", ["bob"])
    assert (await until(ann, "ack"))["id"] == 1
    await ann.send({"type": "whisper", "id": 2, "channel": "cars", "message": "psst", "to": ["nobody"]})
    assert (await until(ann, "error"))["code"] == "no_recipient"
    assert not [frame for frame in await cat.so_far() if frame["type"] == "whisper"]


async def test_a_whisper_where_presence_is_not_kept(pair):
    first, second = await pair("cars")
    ann, bob = await first.join("ann", "cars"), await second.join("bob", "cars")
    await ann.send({"type": "whisper", "id": 1, "channel": "cars", "message": "psst", "to": ["bob"]})
    assert (await until(bob, "whisper"))["message"] == "psst"
    assert (await until(ann, "ack"))["id"] == 1
    await ann.send({"type": "whisper", "id": 2, "channel": "cars", "message": "psst", "to": ["nobody"]})
    assert (await until(ann, "ack"))["id"] == 2  # who is elsewhere is not known


async def test_typing_is_told_to_the_others_alone(pair):
    first, second = await pair(WITH_PRESENCE)
    ann, tab, bob = [await site.join(name, "cars") for site, name in ((first, "ann"), (second, "ann"), (second, "bob"))]
    await ann.send({"type": "typing", "channel": "cars"})
    assert (await until(bob, "typing"))["user"] == "ann"
    assert not [frame for frame in await tab.so_far() if frame["type"] == "typing"]


@pytest.mark.parametrize("options", [{}, {"presence": ["*"]}])
async def test_who_is_there_is_asked_for_and_told_on_all_nodes(pair, options):
    first, second = await pair(WITH_PRESENCE, **options)
    ann = await first.join("ann", "cars")
    assert [user["user"] for user in (await until(ann, "presence", event="list"))["users"]] == ["ann"]
    bob = await second.join("bob", "cars")
    assert {user["user"] for user in (await until(bob, "presence", event="list"))["users"]} == {"ann", "bob"}
    assert (await until(ann, "presence", event="join"))["user"] == "bob"
    await ann.send({"type": "presence", "id": 1, "channel": "cars"})
    assert {user["user"] for user in (await until(ann, "presence", id=1))["users"]} == {"ann", "bob"}
    await bob.send({"type": "unsubscribe", "channel": "cars"})
    assert (await until(ann, "presence", event="leave"))["user"] == "bob"
    await eventually(lambda: devices(first) == {"ann": 1})
