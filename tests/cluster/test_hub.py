"""A hub, and with it the HTTP API, reaches the connections of all nodes; fastws.v1 keeps its rules there."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect

from fastws.hub import Hub
from fastws.v1.listener import PROTOCOL

from ..lib.support import eventually
from ..lib.v1 import Named, rules


class Talker:
    """A client of fastws.v1 that keeps the frames it gets."""

    def __init__(self, socket):
        self.socket, self.frames = socket, []
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self):
        async for text in self.socket:
            if text != "{}":
                self.frames.append(json.loads(text))

    def of(self, kind):
        return [frame for frame in self.frames if frame["type"] == kind]

    async def say(self, **frame):
        await self.socket.send(json.dumps(frame))

    @property
    def id(self):
        return self.of("welcome")[0]["id"]


@pytest.fixture
async def talk():
    """`await talk(site, user)` is a client; with a hello unless ``silent``."""
    talkers = []

    async def come(site, user, *channels, silent=False):
        talker = Talker(await connect(f"{site.url}/ws?user={user}", subprotocols=[PROTOCOL]))
        talkers.append(talker)
        if not silent:
            await talker.say(type="hello", version=1, channels=dict.fromkeys(channels))
            await eventually(lambda: len(talker.of("subscribed")) == len(channels) and talker.of("welcome"))
        return talker

    yield come
    for talker in talkers:
        await talker.socket.close()


@pytest.fixture
async def sites(memory_fleet):
    return [await memory_fleet.start(Named(rules("*"), heartbeat=0), path="/ws") for _ in range(2)]


async def test_a_message_reaches_users_and_ids_once(sites, talk):
    a, b = sites
    ann, bob, eve = await talk(b, "ann"), await talk(b, "bob"), await talk(a, "eve")
    late = await talk(b, "ann", silent=True)
    hub = Hub(a.server)
    await eventually(lambda: len(b.manager.connections) == 3)
    assert hub.send("one", users=["ann", "eve"], to=[ann.id, bob.id]) == 1
    assert hub.send("two", users="ann", to=bob.id, exclude=[bob.id]) == 0
    assert hub.send("three", to=[bob.id]) == 0
    await eventually(lambda: len(ann.of("direct")) == 2 and len(bob.of("direct")) == 2 and eve.of("direct"))
    assert [frame["message"] for frame in ann.of("direct")] == ["one", "two"]
    assert [frame["message"] for frame in bob.of("direct")] == ["one", "three"]
    assert [frame["message"] for frame in eve.of("direct")] == ["one"]
    assert late.frames == []  # not before its hello


async def test_connections_join_and_leave_channels(sites, talk):
    a, b = sites
    ann, bob = await talk(b, "ann", "x"), await talk(b, "bob")
    late = await talk(b, "ann", silent=True)
    hub = Hub(a.server)
    await eventually(lambda: len(b.manager.connections) == 3)
    hub.subscribe("news", users="ann", to=[bob.id, "nobody", "0123456789-1"])
    await eventually(lambda: b.manager.channels.get("news") == 2)
    assert late.frames == []
    await late.say(type="hello", version=1, channels={})
    await eventually(lambda: [frame["channel"] for frame in late.of("subscribed")] == ["news"])
    hub.unsubscribe("news", to=[bob.id])
    await eventually(lambda: bob.of("unsubscribed"))
    assert b.manager.channels["news"] == 2
    hub.unsubscribe("news", users=["ann"])
    await eventually(lambda: ann.of("unsubscribed") and late.of("unsubscribed"))
    assert dict(b.manager.channels) == {"x": 1}


async def test_connections_are_closed_by_id_user_and_channel(sites, talk):
    a, b = sites
    ann, bob, eve, joe = [await talk(b, user, user) for user in ("ann", "bob", "eve", "joe")]
    hub = Hub(a.server)
    hub.close(to=[ann.id], code=4100, reason="by id")
    hub.close(users=["bob"], code=4200)
    hub.close(channel="eve", code=4300)
    for talker, code in ((ann, 4100), (bob, 4200), (eve, 4300)):
        await talker.socket.wait_closed()
        assert talker.socket.close_code == code
    assert list(b.manager.users) == ["joe"]
    assert joe.of("unsubscribed") == []
    with pytest.raises(ValueError, match="1006"):
        hub.close(to=[joe.id], code=1006)
