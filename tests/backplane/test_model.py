"""Logs and the directory under random orders of several nodes, against a model in plain Python.

Hypothesis finds the orders, and shrinks those that fail. FASTWS_BACKPLANE_EXAMPLES is the number of sequences to try.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fastws.backplane.base import LogName, Read, Record, UserName
from fastws.logs import History, Latest, Position

from ..lib.support import eventually
from .peers import Backplanes

EXAMPLES = int(os.environ.get("FASTWS_BACKPLANE_EXAMPLES", "30"))
KEEP = 4
LOGS = [LogName("/ws", "room", History(size=KEEP)), LogName("/ws", "prices", Latest(changes=KEEP))]
NODES = ["a", "b", "c"]

nodes, logs = st.sampled_from(NODES), st.sampled_from(LOGS)
payloads = st.binary(max_size=8)
keys = st.sampled_from(["AAPL", "MSFT", ""])
users = st.lists(st.sampled_from([UserName("/ws", name) for name in ("ann", "bob", "eve")]), unique=True)


@dataclass
class Model:
    """One log, as it has to be."""

    base: Position
    records: list[Record] = field(default_factory=list)  # all of this life
    values: dict[str, Record] = field(default_factory=dict)
    ids: dict[str, Position] = field(default_factory=dict)
    told: list[Record] = field(default_factory=list)  # to followers, in all lives
    begun: list[tuple[Position, str]] = field(default_factory=list)
    seen: list[Position] = field(default_factory=list)  # positions of all lives

    @property
    def top(self) -> Position:
        return self.records[-1].position if self.records else self.base

    def append(self, record: Record) -> None:
        assert record.position > self.top
        self.records.append(record)
        self.told.append(record)
        self.seen.append(record.position)
        self.values.pop(record.key or "", None)
        if record.payload is not None:
            self.values[record.key or ""] = record

    def begin(self, base: Position, reason: str) -> None:
        assert base not in self.seen
        assert base.offset >= self.top.offset
        self.base, self.records, self.ids = base, [], {}
        self.begun.append((base, reason))
        self.seen.append(base)

    def place(self, position: Position) -> int | None:
        """How many records of this life are up to a position; None if it is none of it."""
        places = [self.base, *[record.position for record in self.records]]
        return places.index(position) if position in places else None

    def check(self, log: LogName, since: Position, limit: int, read: Read) -> None:
        assert read.top == self.top
        place = self.place(since)
        missing = self.records[place:] if place is not None else []
        if log.has_keys:
            missing = sorted({record.key: record for record in missing}.values())
        if place is None:
            assert read.status in ("unknown", "trimmed")
        elif len(self.records) - place <= KEEP:
            assert read.status == ("ok" if len(missing) <= limit else "too_many")
        else:
            assert read.status in ("ok", "too_many", "trimmed")
        assert list(read.records) == (missing if read.status == "ok" else [])


class Orders(RuleBasedStateMachine):
    """Three nodes on one store, of which the third only follows."""

    def __init__(self, request, store):
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.stack = AsyncExitStack()
        self.request, self.store = request, store
        self.directory: dict[UserName, set[str]] = {}

    def run(self, awaitable):
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, 60))

    @initialize()
    def start(self):
        self.run(self._start())

    async def _start(self):
        backplanes = Backplanes(await self.stack.enter_async_context(self.store(self.request)))
        self.stack.push_async_callback(backplanes.stop)
        self.nodes = {name: await backplanes.node(name) for name in NODES}
        self.followed = {log: await self.nodes["c"].follow(log) for log in LOGS}
        self.models = {log: Model(await self.nodes["c"].top(log)) for log in LOGS}
        for model in self.models.values():
            model.seen.append(model.base)

    @rule(
        node=nodes,
        log=logs,
        several=st.lists(st.tuples(payloads, keys, st.booleans()), min_size=1, max_size=7),
        id=st.none() | st.sampled_from("xyz"),
    )
    def append(self, node, log, several, id):
        """Some records in one turn; the first of them with an id."""
        self.run(self._append(self.nodes[node].backplane, self.models[log], log, several, id))

    async def _append(self, backplane, model, log, several, id):
        futures = []
        for payload, key, is_deletion in several:
            options = {"key": key, "is_deletion": is_deletion} if log.has_keys else {}
            futures.append(backplane.append(log, payload, id=None if futures else id, **options))
        for future, (payload, key, is_deletion) in zip(futures, several, strict=True):
            position = await future
            if id is not None and future is futures[0]:
                if id in model.ids:
                    assert position == model.ids[id]
                    continue
                model.ids[id] = position
            record = Record(position, key, None if is_deletion else payload) if log.has_keys else None
            model.append(record or Record(position, None, payload))

    @rule(
        node=nodes, log=logs, which=st.integers(0, 1000), limit=st.integers(0, 10), shift=st.sampled_from([0, 0, 1, -1])
    )
    def read(self, node, log, which, limit, shift):
        """From a position of any life, or beside it."""
        model = self.models[log]
        known = model.seen[-1 - which % len(model.seen)]
        since = Position(known.offset, known.tag + shift)
        if shift and since in model.seen:
            return
        model.check(log, since, limit, self.run(self.nodes[node].backplane.read(log, since, limit)))

    @rule(node=nodes, log=logs)
    def snapshot(self, node, log):
        model, read = self.models[log], self.run(self.nodes[node].backplane.snapshot(log))
        records = list(read.records)
        assert read.top == model.top
        if log.has_keys:
            assert records == sorted(model.values.values())
        else:
            assert len(records) >= min(KEEP, len(model.records))
            assert records == model.records[len(model.records) - len(records) :]

    @rule(node=nodes)
    def tops(self, node):
        assert self.run(self.nodes[node].backplane.tops(LOGS)) == [self.models[log].top for log in LOGS]

    @rule(node=nodes, log=logs)
    def clear(self, node, log):
        model = self.models[log]
        model.begin(self.run(self.nodes[node].backplane.clear(log)), "cleared")
        model.values.clear()

    @rule(node=nodes, log=logs, ahead=st.integers(0, 5), is_other=st.booleans())
    def broken(self, node, log, ahead, is_other):
        """Somebody has seen a record that the store never had; or one that it has."""
        model, backplane = self.models[log], self.nodes[node].backplane
        seen = Position(model.top.offset + ahead, model.top.tag - 1) if is_other else model.seen[-1]
        base = self.run(backplane.broken(log, seen))
        if seen in model.seen or (base == model.top and seen.offset <= model.base.offset):
            assert base == model.top
        else:
            assert base.offset >= seen.offset
            model.begin(base, "unknown")

    @rule(node=nodes, names=users)
    def claim(self, node, names):
        others = self.run(self.nodes[node].backplane.claim(names))
        for user, nodes in zip(names, others, strict=True):
            had = self.directory.setdefault(user, set())
            assert sorted(other.id for other in nodes) == sorted(had - {node})
            had.add(node)

    @rule(node=nodes, of=nodes, names=users)
    def release(self, node, of, names):
        dead = None if of == node else self.nodes[of].key
        left = self.run(self.nodes[node].backplane.release(names, dead))
        for user, nodes in zip(names, left, strict=True):
            had = self.directory.setdefault(user, set())
            had.discard(of)
            assert {other.id for other in nodes} == had

    @rule(node=nodes, of=nodes)
    def holdings(self, node, of):
        held = self.run(self.nodes[node].backplane.holdings(self.nodes[of].key))
        assert set(held) == {user for user, names in self.directory.items() if of in names}

    @invariant()
    def followers_were_told_everything_once_and_in_order(self):
        for log, model in self.models.items() if hasattr(self, "models") else ():
            followed = self.followed[log]
            self.run(
                eventually(lambda m=model, f=followed: len(f.records) >= len(m.told) and len(f.begun) >= len(m.begun))
            )
            assert followed.records == model.told
            assert followed.begun == model.begun
            assert followed.is_chained

    def teardown(self):
        self.run(self.stack.aclose())
        self.loop.close()


@pytest.mark.timeout(600)
def test_the_store_agrees_with_the_model(request, store):
    run_state_machine_as_test(
        lambda: Orders(request, store),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
