"""Many connections under random orders, against a model in plain Python: each receives exactly what it should."""

import os
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from .raw import BINARY, CLOSE, TEXT, close_frame
from .support import Recorder, eventually, nothing_left

CHANNELS = ["cars", "bikes", "planes", "ships"]
USERS = ["ann", "bob", "eve", None]
STEPS = 400
SEEDS = int(os.environ.get("FASTWS_MODEL_SEEDS", "8"))


@dataclass(eq=False)
class Peer:
    """What the model knows of one connection."""

    raw: Any
    ws: Any
    user: str | None
    channels: set[str]
    expected: list[str | bytes] = field(default_factory=list)


class Login(Recorder):
    def on_handshake(self, request):
        request.user = request.query.get("user")


class World:
    """The server, the model beside it, and a source of random orders."""

    def __init__(self, site, listener, dial, seed):
        self.manager = site.manager
        self.url = site.url
        self.listener = listener
        self.dial = dial
        self.random = random.Random(seed)
        self.open = []
        self.gone = ["gone"]
        self.number = 0

    def message(self):
        """A message unlike any other, of any size and either kind."""
        self.number += 1
        size = self.random.choice([1, 1, 1, 10, 100, 1000, 20_000, 70_000])
        text = f"{self.number}:" + "x" * size
        return text if self.random.random() < 0.5 else text.encode()

    def some(self, values):
        return self.random.sample(values, self.random.randint(0, min(3, len(values))))

    def names(self):
        """Ids, connections, and ids of those who are gone, and the peers that they name."""
        peers = self.some(self.open)
        names = [self.random.choice([peer.ws, peer.ws.id]) for peer in peers]
        if self.random.random() < 0.3:
            names.append(self.random.choice(self.gone))
        return names, peers

    def deliver(self, message, peers, count):
        assert count == len(peers)
        for peer in peers:
            peer.expected.append(message)

    async def enter(self):
        user, channel = self.random.choice(USERS), self.random.choice(CHANNELS)
        opened = len(self.listener.sockets)
        query = f"?user={user}" if user else ""
        raw = await self.dial(self.url, f"/ws/{channel}{query}", receive_buffer=4096)
        await eventually(lambda: len(self.listener.sockets) > opened)
        self.open.append(Peer(raw, self.listener.sockets[opened], user, {channel}))

    async def leave(self):
        if len(self.open) < 3:
            return
        peer = self.open.pop(self.random.randrange(len(self.open)))
        self.gone.append(self.random.choice([peer.ws, peer.ws.id]))
        closed = len(self.listener.of("on_close"))
        how = self.random.choice(["reset", "peer closes", "server closes"])
        if how == "reset":
            peer.raw.reset()
        elif how == "peer closes":
            await peer.raw.send(close_frame(1000))
            await self.check(peer)
        else:
            peer.ws.close(4000)
            await self.check(peer)
            await peer.raw.send(close_frame(4000))
        await eventually(lambda: len(self.listener.of("on_close")) > closed)
        peer.raw.close()

    async def check(self, peer, marker=None):
        """The peer's next messages are those it should get, up to the marker or the close frame."""
        for expected in peer.expected:
            got = await peer.raw.frame()
            assert got.opcode == (TEXT if isinstance(expected, str) else BINARY)
            assert got.payload == (expected.encode() if isinstance(expected, str) else expected)
        peer.expected.clear()
        got = await peer.raw.frame()
        assert got.payload == marker if marker else got.opcode == CLOSE

    def subscribe(self):
        peer, channel = self.random.choice(self.open), self.random.choice(CHANNELS)
        peer.channels.add(channel)
        assert peer.ws.subscribe(channel) == len(self.members(channel))

    def unsubscribe(self):
        peer, channel = self.random.choice(self.open), self.random.choice(CHANNELS)
        peer.channels.discard(channel)
        assert self.manager.unsubscribe(channel, peer.ws) == len(self.members(channel))

    def unsubscribe_all(self):
        peer = self.random.choice(self.open)
        peer.channels.clear()
        peer.ws.unsubscribe_all()

    def members(self, channel):
        return [peer for peer in self.open if channel in peer.channels]

    def broadcast(self):
        channel, message = self.random.choice(CHANNELS), self.message()
        arguments, reached = {}, self.members(channel)
        named, users = None, None
        if self.random.random() < 0.5:
            arguments["to"], named = self.names()
        if self.random.random() < 0.4:
            arguments["users"] = users = self.some([user for user in USERS if user] + ["nobody"])
        if named is not None or users is not None:
            reached = [peer for peer in reached if peer in (named or []) or peer.user in (users or [])]
        if self.random.random() < 0.3:
            arguments["exclude"], excluded = self.names()
            reached = [peer for peer in reached if peer not in excluded]
        self.deliver(message, reached, self.manager.broadcast(channel, message, **arguments))

    def send(self):
        message, (names, peers) = self.message(), self.names()
        self.deliver(message, peers, self.manager.send(names, message))

    def send_to_user(self):
        message, users = self.message(), self.some([user for user in USERS if user])
        reached = [peer for peer in self.open if peer.user in users]
        self.deliver(message, reached, self.manager.send_to_user(users, message))

    def send_directly(self):
        message, peer = self.message(), self.random.choice(self.open)
        assert peer.ws.send(message) is True
        peer.expected.append(message)

    def burst(self):
        for _ in range(30):
            self.broadcast()

    async def read(self):
        peer = self.random.choice(self.open)
        assert peer.ws.send(b"marker")
        await self.check(peer, b"marker")

    def check_state(self):
        counts = {channel: len(self.members(channel)) for channel in CHANNELS}
        assert dict(self.manager.channels) == {name: n for name, n in counts.items() if n}
        assert set(self.manager.connections.values()) == {peer.ws for peer in self.open}
        devices = {user: {peer.ws.id for peer in self.open if peer.user == user} for user in USERS if user}
        users = {user: set(ids) for user, ids in self.manager.users.items()}
        assert users == {user: ids for user, ids in devices.items() if ids}
        assert all(peer.ws.channels == peer.channels for peer in self.open)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("flush_threads", [1, 2])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_everyone_receives_exactly_what_the_model_says(serve, dial, seed, flush_threads):
    listener = Login()
    site = await serve(listener, max_backlog=1 << 30, flush_threads=flush_threads)
    world = World(site, listener, dial, seed)
    for _ in range(5):
        await world.enter()
    orders = [world.broadcast] * 8 + [world.send, world.send_to_user, world.send_directly] * 2
    orders += [world.subscribe, world.unsubscribe] * 3 + [world.unsubscribe_all, world.burst]
    waits = [world.enter, world.enter, world.leave, world.read]
    for _ in range(STEPS):
        if world.random.random() < 0.1:
            await world.random.choice(waits)()
        else:
            world.random.choice(orders)()
    world.check_state()
    while world.open:
        peer = world.open.pop()
        peer.ws.close()
        await world.check(peer)
        await peer.raw.send(close_frame(1000))
        await peer.raw.eof()
        peer.raw.close()
    await eventually(lambda: nothing_left(site))
    world.check_state()
