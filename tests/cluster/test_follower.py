"""A follower of a log: whatever gets lost, late, or twice on the way, its member misses nothing unsaid."""

import asyncio
import copy
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastws import BackplaneError, History, Latest
from fastws.backplane.base import LogName, NodeKey
from fastws.backplane.memory import Memory, MemoryStore
from fastws.cluster import backoff
from fastws.cluster.follower import LogFollower, Rings

LOG = LogName("/ws", "cars", History(size=8))
PRICES = LogName("/ws", "prices", Latest(changes=8))
LIMIT = 6


class Link(Memory):
    """A store behind a bad line: what it sends may be lost, held or repeated, and it may not answer."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.mode = "open"
        self.is_away = False
        self.slowness = 0
        self.held = []
        self.last = None

    async def follow(self, followers):
        await super().follow({log: Through(self, follower) for log, follower in followers.items()})

    def release(self):
        self.mode, held, self.held = "open", self.held, []
        for call in held:
            call()

    def _check(self):
        if self.is_away:
            raise BackplaneError("away")

    async def read(self, log, since, limit):
        self._check()
        read = await super().read(log, since, limit)
        for _ in range(self.slowness):  # others come in between
            await asyncio.sleep(0)
        return read

    async def snapshot(self, log):
        self._check()
        await asyncio.sleep(0)
        return await super().snapshot(log)

    async def broken(self, log, seen):
        self._check()
        return await super().broken(log, seen)


class Through:
    def __init__(self, link, follower):
        self.link = link
        self.follower = follower

    def on_records(self, previous, records):
        self._pass(lambda: self.follower.on_records(previous, records))

    def on_begun(self, position, reason):
        self._pass(lambda: self.follower.on_begun(position, reason))

    def _pass(self, call):
        self.link.last = call
        if self.link.mode == "hold":
            self.link.held.append(call)
        elif self.link.mode == "open":
            call()


class Node:
    """A follower, and the clients behind it."""

    def __init__(self, link: Link, log: LogName) -> None:
        self.link = link
        self.counts = Counter()
        self.follower = LogFollower(log, link, Rings(1 << 20), lambda what: self.counts.update([what]))
        self.follower.member = self
        self.clients = []

    def on_records(self, records):
        for client in self.clients:
            client.take(records)

    def on_begun(self, missed):
        for client in self.clients:
            client.told(missed)

    def reconcile(self):
        self.follower.reconcile(self.link.store.log(self.follower.log).top)


class Client:
    """What one reader has seen, and whether that is what it was told."""

    def __init__(self, chain) -> None:
        self.chain = chain
        self.position = None
        self.values = {}
        self.node = None

    async def join(self, node, limit=LIMIT):
        missed = await node.follower.catch_up(self.position, limit)
        self.told(missed)
        self.node = node
        node.clients.append(self)

    def leave(self):
        if self.node is not None:
            self.node.clients.remove(self)
            self.node = None

    def told(self, missed):
        if missed.is_snapshot:
            self.values = {}
        if not missed.recovered:
            assert missed.reason in ("new", "trimmed", "unknown", "too_many", "gap", "cleared")
            assert not missed.records
        if not missed.recovered or missed.is_snapshot or self.position is None:
            self.position = None
        before = self.position
        self.take(missed.records)
        if before is not None and not missed.is_snapshot and not any(record.key for record in missed.records):
            assert self.position == missed.position, "what was missed is not whole"
        self.position = missed.position

    def take(self, records):
        for record in records:
            if record.key is None and self.position is not None:
                assert self.chain[record.position] == self.position, "a gap, or twice"
            if self.position is not None:
                assert record.position.offset > self.position.offset
            self.position = record.position
            if record.payload is None:
                self.values.pop(record.key, None)
            else:
                self.values[record.key] = record.payload


class World:
    """Two nodes on one store."""

    def __init__(self, log):
        self.log = log
        self.store = MemoryStore()
        self.chain = {}  # position -> the one before, whether or not the store lost it since
        self.nodes = [Node(Link(self.store), log) for _ in range(2)]
        self.clients = [Client(self.chain) for _ in range(3)]
        self.saved = None
        self.joins = set()
        self.number = 0

    async def start(self):
        self.store.follow(self.log, self, self)
        for node in self.nodes:
            await node.link.start(NodeKey("n", 1), self, prefix="", timeout=1, buffer=1)
            await node.link.follow({self.log: node.follower})
            await node.follower.start()

    def on_connected(self):
        pass

    def append(self, key="a"):
        self.number += 1
        is_deletion = self.log.has_keys and self.number % 5 == 0
        keyed = key if self.log.has_keys else None
        self.store.append(self.log, b"%d" % self.number, keyed, is_deletion, None)

    def on_records(self, previous, records):
        """Told before the nodes are."""
        self.chain[records[0].position] = previous

    def on_begun(self, position, reason):
        pass

    def save(self):
        self.saved = copy.deepcopy(self.store._logs)

    def roll_back(self):
        """The store comes back from its snapshot, and everybody reconciles."""
        if self.saved is not None:
            self.store._logs = copy.deepcopy(self.saved)
            for at in (0, 1):
                self.reconcile(at)

    def join(self, number, at):
        client = self.clients[number]
        if client.node is None and client not in self.joins:
            self.joins.add(client)

            async def run():
                try:
                    await client.join(self.nodes[at])
                except BackplaneError:
                    pass
                finally:
                    self.joins.discard(client)

            self.tasks.append(asyncio.ensure_future(run()))

    async def play(self, steps):
        self.tasks = []
        for number in range(3):
            self.join(number, number % 2)
        for _ in range(4):
            self.append()
        await quiet(self)
        for step, *arguments in steps:
            getattr(self, step)(*arguments)
            await asyncio.sleep(0)
        for node in self.nodes:
            node.link.is_away = False
            node.link.release()
        for _ in range(3):  # as after a reconnect, until all is quiet
            for node in self.nodes:
                node.reconcile()
            await quiet(self)
        for task in self.tasks:
            await task
        for client in self.clients:
            if client.node is not None:
                assert client.position == self.store.log(self.log).top, "something is missing, and nobody said so"
                if self.log.has_keys:
                    table = {k: r.payload for k, r in self.store.log(self.log).values.items()}
                    assert client.values == table

    def mode(self, at, mode):
        if mode == "release":
            self.nodes[at].link.release()
        else:
            self.nodes[at].link.mode = mode

    def again(self, at):
        if self.nodes[at].link.last is not None:
            self.nodes[at].link.last()

    def away(self, at, is_away):
        self.nodes[at].link.is_away = is_away

    def leave(self, number):
        self.clients[number].leave()

    def move(self, number, at):
        self.clients[number].leave()
        self.join(number, at)

    def slow(self, at, slowness):
        self.nodes[at].link.slowness = slowness

    def reconcile(self, at):
        if not self.nodes[at].link.is_away:
            self.nodes[at].reconcile()

    def shrink(self, at):
        self.nodes[at].follower.shrink()

    def clear(self):
        self.store.begin(self.log, "cleared")


async def quiet(world):
    for _ in range(200):
        await asyncio.sleep(0)
        if all(node.follower.is_ready and node.follower._mending is None for node in world.nodes):
            await asyncio.sleep(0)
            if all(task.done() for task in world.tasks):
                return
    raise AssertionError("it never comes to rest")


node = st.integers(0, 1)
STEP = st.one_of(
    st.tuples(st.just("append"), st.sampled_from("abc")),
    st.tuples(st.just("append"), st.sampled_from("abc")),
    st.tuples(st.just("append"), st.sampled_from("abc")),
    st.tuples(st.just("slow"), node, st.integers(0, 4)),
    st.tuples(st.just("mode"), node, st.sampled_from(["open", "lose", "hold", "release"])),
    st.tuples(st.just("again"), node),
    st.tuples(st.just("away"), node, st.booleans()),
    st.tuples(st.just("join"), st.integers(0, 2), node),
    st.tuples(st.just("move"), st.integers(0, 2), node),
    st.tuples(st.just("move"), st.integers(0, 2), node),
    st.tuples(st.just("leave"), st.integers(0, 2)),
    st.tuples(st.just("reconcile"), node),
    st.tuples(st.just("shrink"), node),
    st.tuples(st.just("save")),
    st.tuples(st.just("roll_back")),
    st.tuples(st.just("clear")),
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0)
    monkeypatch.setattr(backoff, "LAST_DELAY", 0)


async def play(log, steps):
    world = World(log)
    await world.start()
    await world.play(steps)


# What chance finds too seldom.
WAIT = ("slow", 0, 4)
EMPTY_RING = 3 * [("shrink", 0)]
LOST_UNSEEN = [("save",), ("append", "a"), ("append", "a"), ("roll_back",), ("append", "a")]
LATE_READ = [("leave", 0), ("append", "a"), *EMPTY_RING, WAIT, ("join", 0, 0), WAIT, ("append", "a")]
HELD = [("leave", 0), ("append", "a"), *EMPTY_RING, ("mode", 0, "hold"), ("append", "a"), ("join", 0, 0), WAIT]
NOBODY_HEARS = [("mode", 0, "lose"), ("mode", 1, "lose"), ("away", 0, True), ("away", 1, True)]
SAME_OFFSET = [("save",), ("append", "a"), *NOBODY_HEARS, ("roll_back",), ("append", "a")]
BOTH_LIVES = [("mode", 0, "lose"), ("save",), ("append", "a"), ("leave", 1), ("away", 1, True), ("mode", 0, "open"),
              ("roll_back",), ("append", "a"), ("append", "a"), ("join", 1, 0)]  # fmt: skip
MENDED_LATE = [("leave", 0), *EMPTY_RING, ("append", "a"), *EMPTY_RING, WAIT, ("join", 0, 0), WAIT, ("mode", 0, "lose"),
               ("append", "a"), ("mode", 0, "open"), ("append", "a"), WAIT, WAIT, WAIT]  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=60))
@example(LOST_UNSEEN)
@example(LATE_READ)
@example(HELD)
@example(SAME_OFFSET)
@example(BOTH_LIVES)
@example(MENDED_LATE)
def test_of_a_history_nothing_is_missed_unsaid(steps):
    asyncio.run(play(LOG, steps))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP.filter(lambda step: step[0] not in ("roll_back", "clear")), max_size=60))
def test_of_latest_values_everybody_ends_with_all(steps):
    asyncio.run(play(PRICES, steps))
