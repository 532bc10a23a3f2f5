"""The hub: deaths, workers that do not read, supervisors that do not answer. The rest is in tests/backplane."""

import asyncio
import os
import socket

import pytest

from fastws import ConfigurationError
from fastws.backplane.base import BackplaneError, NodeKey, Subject, UserName
from fastws.backplane.hub import HubClient
from fastws.backplane.hub_server import HubServer

from ..backplane.peers import CARS, ROOM, Backplanes
from ..lib.raw import TIMEOUT
from ..lib.support import eventually

ANN, BOB = UserName("/ws", "ann"), UserName("/ws", "bob")
MIB = 1024 * 1024


class Machine:
    """A hub, and the nodes at the other ends of its socket pairs."""

    def __init__(self, limit=4 * MIB):
        self.hub = HubServer(limit)
        self._nodes = Backplanes(lambda: HubClient(f"hub://{self._end()}"))

    def _end(self):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.connecting = asyncio.ensure_future(self.hub.connect(ours))
        return theirs.detach()

    async def node(self, name, **options):
        """A node as tests/backplane has them, and its connection at the hub."""
        node = await self._nodes.node(name, **options)
        node.at_hub = await self.connecting
        return node

    async def stop(self):
        await self._nodes.stop()
        await self.hub.stop()


@pytest.fixture
async def machine():
    machine = Machine()
    yield machine
    await machine.stop()


def die(node):
    """What the hub sees of a process that was killed."""
    node.backplane._link.abort()


async def test_the_others_hear_of_a_death_and_one_of_them_buries(machine):
    a, b, c = [await machine.node(name) for name in "abc"]
    await a.backplane.beat(b"")
    await a.backplane.claim([ANN, BOB])
    await b.backplane.claim([BOB])
    die(a)
    await eventually(lambda: b.gone == c.gone == [a.key])
    assert a.key not in (await b.backplane.beat(b"")).nodes
    assert await b.backplane.bury(a.key, 99) == [a.key]
    assert await c.backplane.bury(a.key, 1) == []
    assert await b.backplane.holdings(a.key) == [ANN, BOB]
    assert await b.backplane.release([ANN, BOB], a.key) == [[], [b.key]]
    await b.backplane.buried(a.key)
    assert await c.backplane.find([ANN, BOB]) == [[], [b.key]]


async def test_a_death_frees_what_the_node_listened_to_and_followed(machine):
    a, b = await machine.node("a"), await machine.node("b")
    await a.listen(CARS)
    await a.follow(ROOM)
    received = await b.listen(CARS)
    followed = await b.follow(ROOM)
    die(a)
    await eventually(lambda: len(machine.hub.workers) == 1)
    c = await machine.node("c")
    c.backplane.send(CARS, b"on")
    await c.append(ROOM, b"on")
    await eventually(lambda: received == followed.payloads == [b"on"])
    await machine.stop()
    assert machine.hub.listeners == machine.hub.relays == {}


async def test_whoever_dies_while_burying_leaves_that_to_the_next(machine):
    a, b, c = [await machine.node(name) for name in "abc"]
    for node in (a, b, c):
        await node.backplane.beat(b"")
    await a.backplane.claim([ANN])
    die(a)
    await eventually(lambda: b.gone == [a.key])
    assert await b.backplane.bury(a.key, 1) == [a.key]
    die(b)
    await eventually(lambda: b.key in c.gone)
    assert set(await c.backplane.bury(b.key, 1)) == {a.key, b.key}


async def test_whoever_comes_later_hears_of_the_dead_whom_nobody_has_buried(machine):
    a = await machine.node("a")
    await a.backplane.claim([ANN])
    die(a)
    await eventually(lambda: not machine.hub.workers)
    b = await machine.node("b")
    assert b.gone == [a.key]
    c = await machine.node("c")
    assert c.gone == []  # b sees to it
    die(b)
    await eventually(lambda: c.gone == [a.key])


async def test_a_node_that_leaves_is_not_gone(machine):
    a, b = await machine.node("a"), await machine.node("b")
    await a.backplane.beat(b"")
    await a.backplane.claim([ANN])
    await a.backplane.release([ANN])
    await a.backplane.leave()
    await a.backplane.stop()
    await eventually(lambda: len(machine.hub.workers) == 1)
    assert list((await b.backplane.beat(b"")).nodes) == [b.key]
    assert b.gone == []


async def test_of_a_node_that_was_renamed_its_new_name_is_gone(machine):
    a, b = await machine.node("a"), await machine.node("b")
    again = NodeKey("a", 2)
    a.backplane.rename(again)
    await a.backplane.claim([ANN])
    die(a)
    await eventually(lambda: b.gone == [again])


async def test_a_worker_that_does_not_read_costs_bounded_memory_and_learns_what_it_missed(machine):
    a, b, c = [await machine.node(name) for name in "abc"]
    received, others = await b.listen(CARS), await c.listen(CARS)
    followed = await b.follow(ROOM)
    transport = b.backplane._link._transport
    transport.pause_reading()  # as a worker whose loop is held up
    payload, rounds = bytes(64 * 1024), 400
    for number in range(rounds):
        a.backplane.send(CARS, payload)
        if number % 10 == 9:
            await a.append(ROOM, payload)
        waiting = b.at_hub._transport.get_write_buffer_size()
        assert waiting < 5 * MIB
    await eventually(lambda: len(others) == rounds)
    transport.resume_reading()
    await eventually(lambda: b.connected == 2)
    assert b.reasons == [f"this worker has not read for too long: {b.backplane.lost} messages are lost"]
    assert len(received) + len(followed.payloads) + b.backplane.lost == rounds + rounds // 10
    a.backplane.send(CARS, b"on")
    await a.append(ROOM, b"on")
    await eventually(lambda: received[-1] == followed.payloads[-1] == b"on")
    assert (await b.backplane.read(ROOM, None, 0)).top.offset == rounds // 10 + 1


async def test_answers_to_a_worker_that_does_not_read_are_bounded_too(machine):
    a, b = await machine.node("a", buffer=64 * MIB), await machine.node("b")
    await a.append(ROOM, *[bytes(MIB)] * 5)
    transport = a.backplane._link._transport
    transport.pause_reading()
    reads = [asyncio.ensure_future(a.backplane.snapshot(ROOM)) for _ in range(50)]
    for _ in range(50):
        assert await b.backplane.find([ANN]) == [[]]  # the others go on
        assert a.at_hub._transport.get_write_buffer_size() < 16 * MIB
    transport.resume_reading()
    for read in reads:
        assert sum(len(record.payload) for record in (await read).records) == 5 * MIB


async def test_a_supervisor_that_does_not_read_costs_bounded_memory_and_is_said_to_be_away(machine):
    a = await machine.node("a", buffer=MIB, timeout=0.2)
    a.at_hub._transport.pause_reading()  # as a supervisor that was stopped
    for _ in range(100):
        a.backplane.send(CARS, bytes(64 * 1024))
        await asyncio.sleep(0)
        assert a.backplane._link._transport.get_write_buffer_size() < 2 * MIB
    assert 50 < a.backplane.lost < 100
    with pytest.raises(BackplaneError):
        await a.append(ROOM, b"1")
    a.at_hub._transport.resume_reading()
    await eventually(lambda: not a.backplane._link.is_full)
    await a.append(ROOM, b"2")
    assert a.backplane.is_connected


async def test_an_answer_that_does_not_come_is_an_error_after_the_timeout(machine):
    a = await machine.node("a", timeout=0.2)
    a.at_hub._transport.pause_reading()
    with pytest.raises(BackplaneError, match=r"has not answered within 0\.2 s"):
        await a.backplane.find([ANN])
    assert (a.reasons, a.backplane.is_connected) == (["the supervisor does not answer"], False)
    a.at_hub._transport.resume_reading()
    await eventually(lambda: a.connected == 2)
    assert await a.backplane.find([ANN]) == [[]]


async def test_the_end_of_the_supervisor_is_said_and_fails_what_waits(machine):
    a = await machine.node("a")
    a.at_hub._transport.pause_reading()
    waiting = asyncio.ensure_future(a.backplane.beat(b""))
    await asyncio.sleep(0)
    a.at_hub.abort()
    with pytest.raises(BackplaneError, match="the supervisor is gone"):
        await waiting
    assert (a.reasons, a.backplane.is_connected) == (["the supervisor is gone"], False)
    a.backplane.send(CARS, b"lost")
    assert a.backplane.lost == 1
    with pytest.raises(BackplaneError):
        await a.backplane.beat(b"")


@pytest.mark.parametrize("turns", range(4))
async def test_a_connection_that_is_given_up_while_it_is_made_leaves_nothing(turns):
    hub = HubServer()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connecting = asyncio.ensure_future(hub.connect(ours))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        async with asyncio.timeout(TIMEOUT):
            await hub.stop()
    assert hub.workers == []


async def test_a_message_of_any_size_arrives_whole(machine):
    a, b = await machine.node("a", buffer=64 * MIB), await machine.node("b")
    received = await b.listen(CARS, Subject("node", "", "b"))
    payloads = [os.urandom(size) for size in (0, 1, 200_000, 3 * MIB, 5, 262_144)]
    for payload in payloads:
        a.backplane.send(CARS, payload)
    a.backplane.send(Subject("node", "", "b"), b"last")
    await eventually(lambda: received[-1:] == [b"last"])
    assert received == [*payloads, b"last"]


async def test_what_raises_in_a_receiver_is_logged_and_the_rest_goes_on(machine, caplog):
    a, b = await machine.node("a"), await machine.node("b")
    received = []

    def receive(payload):
        if payload == b"bad":
            raise ValueError(payload)
        received.append(payload)

    await b.backplane.listen({CARS: receive})
    a.backplane.send(CARS, b"bad")
    a.backplane.send(CARS, b"good")
    await eventually(lambda: received == [b"good"])
    assert "ValueError: b'bad'" in caplog.text


@pytest.mark.parametrize("url", ["hub://", "hub://x", "hub://999999"])
async def test_a_url_without_a_supervisor_is_refused(url):
    with pytest.raises(ConfigurationError, match="only `fastws serve --workers` sets it"):
        await Backplanes(lambda: HubClient(url)).node("a")
