"""Which nodes there are, who is dead, and who buries them; no clock of anybody else is asked."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from ..backplane.base import Backplane, BackplaneError, Beat, NodeKey, NodeState, Subject
from ..config import Options
from .payloads import packed

__all__ = ["EVERYBODY", "Members", "NodeInfo", "Undertaker", "Watcher"]

logger = logging.getLogger("fastws.cluster")

EVERYBODY = Subject("all", "", "")
BEATS_TO_DIE = 3  # of mine in which another's number did not change
TICKS = 6  # in a lease, by which a node sees that it stood still
STAMP = b"t"  # a payload that says nothing


class NodeInfo(NamedTuple):
    """A node, as it was at its last beat."""

    id: str
    """Ids of its connections begin with it."""
    address: str
    started: float
    """Unix time in seconds, by its own clock."""
    connections: int
    version: str
    is_self: bool


class Watcher(Protocol):
    """Whoever is told which nodes live."""

    def on_appeared(self, node: NodeKey) -> None:
        """A node is there, or was not dead after all."""

    def on_died(self, node: NodeKey, *, is_certain: bool) -> None:
        """A node is dead, or gone for good; or it may only be missing, as the store has lost something."""

    def on_reborn(self, before: NodeKey) -> None:
        """The others took this node for dead, or the store has lost it: it goes on under its next incarnation."""


class Undertaker(Protocol):
    """Whoever knows which users nodes have."""

    def bury(self, dead: NodeKey) -> None:
        """Release all that a dead node had, and tell whom that concerns; this node alone has to."""

    async def rename(self, new: NodeKey) -> None:
        """This node goes on as another."""

    async def claim_again(self, was_buried: bool) -> None:
        """After `rename`: claim all users anew. ``was_buried``: the others have told that they are gone."""


class Other:
    """What is known of another node."""

    __slots__ = ("beats", "ending", "info", "is_dead", "unchanged")

    def __init__(self, state: NodeState) -> None:
        self.beats, self.info = state
        self.unchanged = 0  # successful beats of this node since it has beaten
        self.is_dead = False
        self.ending: asyncio.TimerHandle | None = None  # it has stopped: until its users have had time to come back


class Members:
    """Beats for this node and watches the others.

    One whose number does not change in three of this node's own successful beats is dead. So nobody dies while the
    store stands still, or while this node does.
    """

    def __init__(self, node: "Beating", address: str, version: str, connections: Callable[[], int]) -> None:
        self._node = node
        self._lease = node.options.lease
        self._address, self._version, self._connections = address, version, connections
        self._started = time.time()
        self._others: dict[NodeKey, Other] = {}
        self._watchers: list[Watcher] = []
        self._lock = asyncio.Lock()
        self._catching_up: asyncio.Task[None] | None = None
        self._beaten = time.monotonic()  # when the last successful beat began
        self._counted = 0.0  # when the others' beats were last compared
        self._has_beaten = asyncio.Event()
        self._is_over = False
        self._turned = time.monotonic()  # when the loop last turned
        #: On the monotonic clock: until then nothing can have happened that this node slept through.
        self.awake_until = self._turned + self._lease

    # -- who is there

    @property
    def living(self) -> frozenset[NodeKey]:
        """The nodes that live, this one among them; one that has stopped is counted for ``handover`` seconds more."""
        return frozenset((self._node.key, *(key for key, other in self._others.items() if not other.is_dead)))

    @property
    def is_last(self) -> bool:
        """Whether no other node is there that could bury this one."""
        return all(other.is_dead or other.ending is not None for other in self._others.values())

    @property
    def nodes(self) -> list[NodeInfo]:
        """This node and the others that live."""
        others = [
            _info(key, other.info) for key, other in self._others.items() if not other.is_dead and other.ending is None
        ]
        return [_info(self._node.key, self._info())._replace(is_self=True), *sorted(others)]

    def watch(self, watcher: Watcher) -> None:
        """Have somebody told which nodes live; whoever lives now is in `living`."""
        self._watchers.append(watcher)

    @property
    def is_cut_off(self) -> bool:
        """Whether the store has not answered for a lease."""
        return time.monotonic() - self._beaten > self._lease

    async def known(self) -> None:
        """Wait until the store knows this node, and it has slept through nothing."""
        await self._has_beaten.wait()
        await self.awake()

    async def awake(self) -> None:
        """Wait until this node has slept through nothing."""
        if self._catching_up is not None:
            await asyncio.shield(self._catching_up)

    def on_connected(self) -> None:
        """The store is there (again)."""
        self._node.spawn(self._try_to_beat())

    # -- beating

    async def start(self) -> None:
        """Have the store know this node before anything else does, if it answers."""
        if self._node.store.is_connected:
            await self._try_to_beat()
            self._say("here")
        self._node.spawn(self._beat_on())
        self._node.spawn(self._tick())

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(self._lease / BEATS_TO_DIE)
            await self._try_to_beat()

    async def _try_to_beat(self) -> None:
        with contextlib.suppress(BackplaneError):  # that one is not counted; the next one comes
            await self.beat()

    async def beat(self) -> None:
        """Count this node's beats up, and see who else has beaten; raises BackplaneError."""
        async with self._lock:
            if self._is_over:
                return
            began = time.monotonic()
            beat = await self._node.store.beat(self._info())
            if not beat.was_known and self._has_beaten.is_set():
                await self._be_reborn(beat)
            self._note(beat.nodes, began)
            self._beaten = began
            self._has_beaten.set()
        await self._node.on_beat()

    def _info(self, *, is_over: bool = False) -> bytes:
        return orjson.dumps(
            {
                "address": self._address,
                "started": round(self._started, 3),
                "connections": self._connections(),
                "version": self._version,
                "over": is_over,
            }
        )

    def _note(self, nodes: Mapping[NodeKey, NodeState], now: float) -> None:
        if now - self._beaten > self._lease:  # the store or this node stood still, and maybe the others with it
            for other in self._others.values():
                other.unchanged = 0
        counts = now - self._counted > 0.9 * self._lease / BEATS_TO_DIE
        if counts:
            self._counted = now
        for key, state in nodes.items():
            if key.id != self._node.key.id:
                self._note_one(key, state, counts)
        for key in [key for key, other in self._others.items() if key not in nodes and other.ending is None]:
            self._forget(key)

    def _note_one(self, key: NodeKey, state: NodeState, counts: bool) -> None:
        other = self._others.get(key)
        is_over = bool(_said(state.info).get("over"))
        if other is None:
            other = self._others[key] = Other(state)
            self._tell(lambda watcher: watcher.on_appeared(key))
        elif state.beats != other.beats:
            other.beats, other.info = state
            other.unchanged = 0
            if other.is_dead and not is_over:
                other.is_dead = False
                self._tell(lambda watcher: watcher.on_appeared(key))
        elif counts:
            other.unchanged += 1
        if is_over and not other.is_dead:
            self._await_end(key, other)
        elif is_over or other.unchanged >= BEATS_TO_DIE:
            self._die(key, other)

    # -- who dies

    def on_gone(self, key: NodeKey) -> None:
        """A node has ended, as the store has seen."""
        if self._is_over:
            return  # whoever is last leaves without a word to those who have stopped
        other = self._others.get(key)
        if other is None:  # it may have said that it stops before this node began to listen
            asyncio.get_running_loop().call_later(self._node.options.handover, self._bury, key, 0)
        elif other.ending is None:
            self._die(key, other)

    def hear(self, id: str, about: Mapping[str, Any]) -> None:
        """Another node says that it has started or stopped, or whom it has buried."""
        if about.get("kind") == "here":
            self._on_here(id)
        elif about.get("kind") == "over":
            self._on_over(id)
        elif about.get("kind") == "buried":
            for name in about["nodes"]:
                self._on_buried(NodeKey.parse(name))

    def _say(self, kind: str, **about: Any) -> None:
        self._node.store.send(EVERYBODY, packed(self._node.key.id, STAMP, {"kind": kind, **about}))

    def _on_buried(self, key: NodeKey) -> None:
        if key == self._node.key:
            self._node.spawn(self._try_to_beat())
        elif key in self._others and not self._others[key].is_dead:
            self._others[key].is_dead = True
            self._tell(lambda watcher: watcher.on_died(key, is_certain=True))

    def _on_here(self, id: str) -> None:
        """Know it now, so that a node that stops meanwhile is not the last."""
        if all(key.id != id for key in self._others):
            self._node.spawn(self._try_to_beat())

    def _on_over(self, id: str) -> None:
        for key, other in self._others.items():
            if key.id == id and not other.is_dead:
                self._await_end(key, other)

    def _await_end(self, key: NodeKey, other: Other) -> None:
        if other.ending is None:
            loop = asyncio.get_running_loop()
            other.ending = loop.call_later(self._node.options.handover, self._die, key, other)

    def _die(self, key: NodeKey, other: Other) -> None:
        if not other.is_dead:
            other.is_dead = True
            logger.warning("node %s is %s", key, "dead" if other.ending is None else "gone")
            self._tell(lambda watcher: watcher.on_died(key, is_certain=True))
        if other.ending is not None:
            other.ending.cancel()
            other.ending = None
        self._bury(key, other.beats)

    def _forget(self, key: NodeKey) -> None:
        """A node is not in the store any more: another has buried it."""
        other = self._others.pop(key)
        if not other.is_dead:
            is_certain = other.unchanged >= BEATS_TO_DIE - 1
            self._tell(lambda watcher: watcher.on_died(key, is_certain=is_certain))

    def _bury(self, key: NodeKey, beats: int) -> None:
        if not self._is_over:
            self._node.spawn(self._try_to_bury(key, beats))

    async def _try_to_bury(self, key: NodeKey, beats: int) -> None:
        try:
            jobs = await self._node.store.bury(key, beats)
        except BackplaneError:
            return  # with the next beat
        if jobs:  # the others need not wait for their next beat
            self._say("buried", nodes=[str(dead) for dead in jobs])
        for dead in jobs:
            self._node.undertaker.bury(dead)

    def _tell(self, tell: Callable[[Watcher], None]) -> None:
        for watcher in self._watchers:
            tell(watcher)

    # -- being taken for dead

    async def _be_reborn(self, beat: Beat) -> None:
        """Go on under the next incarnation; the old one is buried like any other, maybe by this node itself."""
        store, old = self._node.store, self._node.key
        new = self._node.key = NodeKey(old.id, old.incarnation + 1)
        was_buried = self._is_whole(beat.nodes)
        logger.warning("this node was %s: it goes on as %s", "taken for dead" if was_buried else "lost", new)
        await self._node.undertaker.rename(new)
        self._node.spawn(self._begin_again(old, beat.nodes[old].beats, was_buried))
        await store.beat(self._info())
        self._tell(lambda watcher: watcher.on_reborn(old))

    async def _begin_again(self, old: NodeKey, beats: int, was_buried: bool) -> None:
        await self._node.undertaker.claim_again(was_buried)
        await self._try_to_bury(old, beats)

    def _is_whole(self, nodes: Mapping[NodeKey, NodeState]) -> bool:
        """Whether the store is as it was, but for this node: else it has lost more, and nobody was told of anything."""
        known = [nodes[key].beats >= other.beats for key, other in self._others.items() if key in nodes]
        strangers = [
            state.beats > BEATS_TO_DIE
            for key, state in nodes.items()
            if key not in self._others and key.id != self._node.key.id
        ]
        return all(known) and (bool(known) or any(strangers))

    # -- having stood still

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._lease / TICKS)
            self.look()
            if self.is_cut_off:
                self._node.on_cut_off()

    def look(self) -> None:
        """See whether this process stood still for a lease; if so, `known` waits until all is caught up."""
        now = time.monotonic()
        slept, self._turned = now - self._turned, now
        if slept > self._lease and self._catching_up is None:
            logger.warning("this node stood still for %.1f s", slept)
            self.awake_until = 0.0
            self._catching_up = self._node.spawn(self._catch_up())
        elif self._catching_up is None:
            self.awake_until = now + self._lease

    async def _catch_up(self) -> None:
        """See what has happened; where the store does not answer, go on without."""
        try:
            async with asyncio.timeout(self._node.options.backplane_timeout):
                await self.beat()
                await self._node.catch_up()
        except (BackplaneError, TimeoutError):
            logger.warning("what happened meanwhile is not known yet: the store does not answer")
        finally:
            self._catching_up = None
            self._turned = time.monotonic()
            self.awake_until = self._turned + self._lease

    # -- stopping

    async def stop(self) -> None:
        """The last beat says that this node has stopped: whoever is left buries it, after ``handover`` seconds."""
        self._is_over = True
        store, is_last = self._node.store, self.is_last
        for other in self._others.values():
            if other.ending is not None:
                other.ending.cancel()
        if not store.is_connected:
            return
        try:
            async with asyncio.timeout(self._node.options.backplane_timeout), self._lock:
                if is_last:
                    await store.leave()
                else:
                    self._say("over")
                    await store.beat(self._info(is_over=True))
        except (BackplaneError, TimeoutError):
            pass  # it is found dead after a lease


class Beating(Protocol):
    """The node, as its members need it."""

    key: NodeKey
    store: Backplane
    options: Options
    undertaker: Undertaker

    def spawn(self, work: Any) -> "asyncio.Task[Any]":
        """Run something until it ends or the node stops."""

    def on_beat(self) -> Awaitable[None]:
        """The store has answered."""

    def on_cut_off(self) -> None:
        """The store has not answered for a lease; said again and again."""

    async def catch_up(self) -> None:
        """Do what others have asked for meanwhile."""


def _said(info: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(info)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _info(key: NodeKey, info: bytes) -> NodeInfo:
    said = _said(info)
    return NodeInfo(
        key.id,
        str(said.get("address", "")),
        float(said.get("started", 0)),
        int(said.get("connections", 0)),
        str(said.get("version", "")),
        is_self=False,
    )
