"""Many connections under random orders, against a model in plain Python: each receives exactly what it should.

Hypothesis finds the orders, and shrinks those that fail. FASTWS_MODEL_EXAMPLES is the number of sequences to try.
"""

import asyncio
import os
import struct
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fastws import Listener, Server

from ..lib.deflate import OFFER, message_in
from ..lib.raw import BINARY, CLOSE, PING, TEXT, Raw, close_frame, frame
from ..lib.support import Site, eventually, nothing_left

EXAMPLES = int(os.environ.get("FASTWS_MODEL_EXAMPLES", "100"))
STEPS = 60
CHANNELS = ["cars", "bikes", "planes"]
USERS = ["ann", "bob", "eve"]

# Nothing may end except by an order, and nothing may be dropped: then it is certain what a stalled peer receives.
OPTIONS = {"max_backlog": 1 << 30, "close_timeout": 3600, "idle_timeout": 0, "ping_interval": 0, "flush_threads": 2}
OPTIONS |= {"compression": "shared", "compression_threshold": 200}
OFFERS = [None, OFFER, f"{OFFER}; server_max_window_bits=9"]


@dataclass(eq=False)
class Peer:
    """What the model knows of one connection."""

    raw: Raw
    ws: Any
    user: str | None
    channels: set[str]
    offer: str | None  # of compression
    expected: list[tuple[int, bytes]] = field(default_factory=list)  # frames: opcode and payload
    is_open: bool = True
    is_told: bool = False  # on_close was called
    is_reset: bool = False

    def __repr__(self):
        return f"<{self.user} {self.ws.id}>"


class Log(Listener):
    """Users from the query string, an echo, and every call that the model waits for."""

    def __init__(self):
        self.opened = []
        self.closed = {}
        self.messages = 0

    def on_handshake(self, request):
        request.user = request.query.get("user")

    def on_open(self, ws):
        self.opened.append(ws)

    def on_message(self, ws, message):
        self.messages += 1
        return message

    def on_close(self, ws, code, reason):
        assert ws not in self.closed
        self.closed[ws] = code, reason, ws.channels


def one_or_many(values):
    """A single value serves as well as a list."""
    return values | st.lists(values, max_size=4)


def several(value):
    return value if isinstance(value, list) else [value]


def given(chosen):
    """The argument for `(peer, by id)`, single or in a list, and the peers it means."""
    names = [peer.ws.id if by_id else peer.ws for peer, by_id in several(chosen)]
    return names if isinstance(chosen, list) else names[0], {peer for peer, _ in several(chosen)}


class World(RuleBasedStateMachine):
    """The server and the model. Peers read only when told to: until then each of them is stalled."""

    peers = Bundle("peers")  # open and gone peers: orders that name the gone ones must reach nobody
    named = one_or_many(st.tuples(peers, st.booleans()))
    users = one_or_many(st.sampled_from([*USERS, "nobody"]))
    channels = st.sampled_from(CHANNELS)
    messages = st.tuples(
        st.sampled_from([str, bytes, bytearray, memoryview, list]),
        st.sampled_from([0, 1, 1, 10, 100, 1000, 20_000, 70_000]),
    )

    def __init__(self):
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.listener = Log()
        self.server = Server(port=0, **OPTIONS)
        self.manager = self.server.endpoint("/ws/{channel}", self.listener)
        self.run(self.server.start())
        self.site = Site(self.server, self.manager, f"ws://127.0.0.1:{self.server.port}")
        self.all = []
        self.number = 0

    def run(self, coroutine: Coroutine):
        return self.loop.run_until_complete(coroutine)

    def message(self, kind_and_size):
        """A unique message, and its frame."""
        kind, size = kind_and_size
        self.number += 1
        text = f"{self.number}:" + "ä" * size
        if kind is str:
            return text, (TEXT, text.encode())
        if kind is list:
            return [text], (TEXT, orjson.dumps([text]))
        return kind(text.encode()), (BINARY, text.encode())

    def deliver(self, carried, reached, count):
        """The model's half of a call that addressed `count` connections."""
        assert count == len(reached)
        for peer in reached:
            peer.expected.append(carried)

    def open(self):
        return {peer for peer in self.all if peer.is_open}

    def members(self, channel):
        return {peer for peer in self.open() if channel in peer.channels}

    def devices(self, users):
        return {peer for peer in self.open() if peer.user in several(users)}

    # -- coming and going

    @initialize(target=peers, channel=channels, user=st.none() | st.sampled_from(USERS), offer=st.sampled_from(OFFERS))
    def first(self, channel, user, offer):
        return self.enter(channel, user, offer)

    @rule(target=peers, channel=channels, user=st.none() | st.sampled_from(USERS), offer=st.sampled_from(OFFERS))
    def enter(self, channel, user, offer):
        async def come():
            raw = await Raw.open(self.site.url, receive_buffer=4096)
            extra = [("Sec-WebSocket-Extensions", offer)] if offer else []
            await raw.upgrade(f"/ws/{channel}" + (f"?user={user}" if user else ""), extra=extra)
            return raw

        peer = Peer(self.run(come()), None, user, {channel}, offer)
        (peer.ws,) = self.listener.opened
        self.listener.opened.clear()
        self.all.append(peer)
        return peer

    @rule(peer=peers)
    def peer_closes(self, peer):
        if peer.is_open:
            peer.expected.append((CLOSE, struct.pack("!H", 3000)))
            self.leave(peer, peer.raw.send(close_frame(3000, b"bye")), (3000, "bye"))

    @rule(peer=peers)
    def server_closes(self, peer):
        self.close({peer} & self.open())
        peer.ws.close(4000, "enough")

    @rule(user=st.sampled_from(USERS))
    def server_closes_user(self, user):
        leaving = self.devices(user)
        self.close(leaving)
        assert self.manager.close_user(user, 4000, "enough") == len(leaving)

    def close(self, leaving):
        """They leave at once, and are told after everything pending; on_close waits for their answer."""
        for peer in leaving:
            peer.is_open = False
            peer.expected.append((CLOSE, struct.pack("!H", 4000) + b"enough"))

    @rule(peer=peers)
    def peer_answers(self, peer):
        if not peer.is_open and not peer.is_told:
            self.leave(peer, peer.raw.send(close_frame(4000)), (4000, ""))

    @rule(peer=peers)
    def peer_shuts_its_side(self, peer):
        if not peer.is_told:
            self.leave(peer, self.call(peer.raw.half_close), (1006, ""))

    @rule(peer=peers)
    def peer_resets(self, peer):
        """Also while closing."""
        if not peer.is_reset:
            peer.is_reset = True
            peer.expected.clear()
            self.leave(peer, self.call(peer.raw.reset), (1006, ""))

    async def call(self, method):
        method()

    def leave(self, peer, does: Coroutine, told):
        """The peer does something; wait until the server has noticed, if there is anything to notice."""

        async def go():
            await does
            await eventually(lambda: peer.ws in self.listener.closed)

        peer.is_open = False
        self.run(go())
        if not peer.is_told:
            peer.is_told = True
            assert self.listener.closed[peer.ws] == (*told, peer.channels)

    # -- channels

    @rule(peer=peers, channel=channels, by_manager=st.booleans())
    def subscribe(self, peer, channel, by_manager):
        if peer.is_open:
            peer.channels.add(channel)
        count = self.manager.subscribe(channel, peer.ws) if by_manager else peer.ws.subscribe(channel)
        assert count == len(self.members(channel))

    @rule(peer=peers, channel=channels, by_manager=st.booleans())
    def unsubscribe(self, peer, channel, by_manager):
        if peer.is_open:
            peer.channels.discard(channel)
        count = self.manager.unsubscribe(channel, peer.ws) if by_manager else peer.ws.unsubscribe(channel)
        assert count == len(self.members(channel))

    @rule(peer=peers)
    def unsubscribe_all(self, peer):
        if peer.is_open:
            peer.channels.clear()
        peer.ws.unsubscribe_all()

    @rule(user=st.sampled_from(USERS), channel=channels, joins=st.booleans())
    def move_user(self, user, channel, joins):
        for peer in self.devices(user):
            peer.channels.add(channel) if joins else peer.channels.discard(channel)
        move = self.manager.subscribe_user if joins else self.manager.unsubscribe_user
        assert move(user, channel) == len(self.members(channel))

    # -- messages

    @rule(channel=channels, message=messages, to=st.none() | named, users=st.none() | users, exclude=st.none() | named)
    def broadcast(self, channel, message, to, users, exclude):
        message, carried = self.message(message)
        reached, arguments = self.members(channel), {}
        chosen = set()
        if to is not None:
            arguments["to"], meant = given(to)
            chosen |= meant
        if users is not None:
            arguments["users"] = users
            chosen |= self.devices(users)
        if arguments:
            reached &= chosen
        if exclude is not None:
            arguments["exclude"], excluded = given(exclude)
            reached -= excluded
        self.deliver(carried, reached, self.manager.broadcast(channel, message, **arguments))

    @rule(channel=channels, message=messages, limit=st.sampled_from([0, 50_000, 1 << 20]), exclude=st.none() | named)
    def broadcast_to_ready(self, channel, message, limit, exclude):
        message, carried = self.message(message)
        excluded = set() if exclude is None else given(exclude)[1]
        meant = self.members(channel) - excluded
        arguments = {} if exclude is None else {"exclude": given(exclude)[0]}
        count, lagging = self.manager._broadcast_to_ready(channel, message, limit, **arguments)
        passed_over = {peer for peer in meant if peer.ws in lagging}
        assert len(lagging) == len(set(lagging)) == len(passed_over)
        assert passed_over >= {peer for peer in meant if peer.ws.pending > limit + (1 << 18)}
        self.deliver(carried, meant - passed_over, count)

    @rule(peer=peers, parts=st.lists(messages, max_size=5), first=st.integers(0, 5))
    def send_run(self, peer, parts, first):
        prepared = [self.message(part) for part in parts]
        run = self.manager._prepare(message for message, _ in prepared)
        sent = [carried for _, carried in prepared[first:]] if peer.is_open else []
        assert peer.ws._send_run(run, first) == len(sent)
        peer.expected += sent

    @rule(to=named, message=messages)
    def send(self, to, message):
        message, carried = self.message(message)
        names, meant = given(to)
        self.deliver(carried, meant & self.open(), self.manager.send(names, message))

    @rule(users=users, message=messages, exclude=st.none() | named)
    def send_to_user(self, users, message, exclude):
        message, carried = self.message(message)
        names, excluded = (None, set()) if exclude is None else given(exclude)
        count = self.manager.send_to_user(users, message, exclude=names)
        self.deliver(carried, self.devices(users) - excluded, count)

    @rule(peer=peers, message=messages)
    def send_directly(self, peer, message):
        message, carried = self.message(message)
        self.deliver(carried, {peer} & self.open(), peer.ws.send(message))

    @rule(peer=peers)
    def ping(self, peer):
        peer.ws.ping()
        if peer.is_open:
            peer.expected.append((PING, b""))

    @rule(peer=peers, message=messages)
    def peer_talks(self, peer, message):
        """It gets its message back, after everything sent before."""
        if peer.is_open:
            before = self.listener.messages
            _, (opcode, payload) = self.message(message)

            async def go():
                await peer.raw.send(frame(opcode, payload))
                await eventually(lambda: self.listener.messages > before)

            self.run(go())
            peer.expected.append((opcode, payload))

    @rule(peer=peers, other=peers, channel=channels, rounds=st.sampled_from([3, 30, 1200]))
    def alternate(self, peer, other, channel, rounds):
        """Bytes side by side in memory that go to different peers: ranges that cannot merge, up to compaction."""
        for _ in range(rounds):
            self.send_directly(peer, (str, 1))
            self.send_directly(other, (bytes, 1))
        self.broadcast(channel, (str, 10), None, None, None)

    # -- time

    @rule(turns=st.integers(1, 3))
    def turn(self, turns):
        async def wait():
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(wait())

    @rule(peer=peers, most=st.sampled_from([1, 10, 10_000]))
    def read(self, peer, most):
        """The peer's next frames are the expected ones."""
        self.run(self.find_expected(peer, most))

    async def find_expected(self, peer, most=sys.maxsize):
        for opcode, payload in peer.expected[:most]:
            got = await peer.raw.frame()
            assert (got.opcode, got.fin, got.masked) == (opcode, True, False)
            assert got.rsv == 0 or (peer.offer and opcode in (TEXT, BINARY))
            assert message_in(got, 9 if peer.offer == OFFERS[-1] else 15) == payload
        del peer.expected[:most]

    @invariant()
    def state_is_that_of_the_model(self):
        counts = {channel: len(self.members(channel)) for channel in CHANNELS}
        assert self.manager.channels == {name: count for name, count in counts.items() if count}
        assert set(self.manager.connections.values()) == {peer.ws for peer in self.open()}
        devices = {user: {peer.ws.id for peer in self.devices(user)} for user in USERS}
        users = {user: set(ids) for user, ids in self.manager.users.items()}
        assert users == {user: ids for user, ids in devices.items() if ids}
        assert all(peer.ws.is_open == peer.is_open for peer in self.all)
        assert all(peer.ws.channels == peer.channels for peer in self.open())

    async def finish(self):
        """Everybody receives all that is left, then the end of the stream; and the engine holds nothing any more."""
        for peer in self.all:
            if peer.is_reset:
                continue
            if peer.is_open:
                peer.ws.close(1001)
                peer.is_open = False
                peer.expected.append((CLOSE, struct.pack("!H", 1001)))
            await self.find_expected(peer)
            if not peer.is_told:
                await peer.raw.send(close_frame(1000))
            assert await peer.raw.eof() == b""
            peer.raw.close()
        await eventually(lambda: nothing_left(self.site))
        assert self.listener.closed.keys() == {peer.ws for peer in self.all}
        self.state_is_that_of_the_model()

    def teardown(self):
        try:
            if sys.exc_info()[0] is None:  # otherwise a rule has failed, and its failure should be shown
                self.run(self.finish())
        finally:
            for peer in self.all:
                peer.raw.close()
            self.run(self.server.stop())
            self.loop.close()


@pytest.mark.timeout(400 + 3 * EXAMPLES)  # hypothesis takes at most five minutes to shrink a failure
def test_everyone_receives_exactly_what_the_model_says():
    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
