"""Nodes on a store; whatever they are told is kept in lists."""

import itertools
from collections.abc import Sequence
from typing import Any

from fastws.backplane.base import Backplane, LogName, NodeKey, Record, Subject, UserName
from fastws.logs import History, Latest, Position

from ..lib.support import eventually
from .stores import Make

ROOM = LogName("/ws", "room", History(size=5))
PRICES = LogName("/ws", "prices", Latest(changes=5))
CARS = Subject("channel", "/ws", "cars")
_prefixes = itertools.count(1)


class Followed:
    """What a follower was told of a log."""

    def __init__(self) -> None:
        self.calls: list[tuple[Position, tuple[Record, ...]]] = []
        self.begun: list[tuple[Position, str]] = []
        self.is_chained = True
        self._cursor: Position | None = None

    def on_records(self, previous: Position, records: Sequence[Record]) -> None:
        self.is_chained &= self._cursor in (None, previous)
        self._cursor = records[-1].position
        self.calls.append((previous, tuple(records)))

    def on_begun(self, position: Position, reason: str) -> None:
        self._cursor = position
        self.begun.append((position, reason))

    @property
    def records(self) -> list[Record]:
        return [record for _, records in self.calls for record in records]

    @property
    def payloads(self) -> list[bytes | None]:
        return [record.payload for record in self.records]


class Peer:
    """A node with its backplane, and the observer of it."""

    def __init__(self, key: NodeKey, backplane: Backplane) -> None:
        self.key, self.backplane = key, backplane
        self.connected = 0
        self.reasons: list[str] = []  # of having been disconnected
        self.gone: list[NodeKey] = []

    def on_connected(self) -> None:
        self.connected += 1

    def on_disconnected(self, reason: str) -> None:
        self.reasons.append(reason)

    def on_gone(self, node: NodeKey) -> None:
        self.gone.append(node)

    async def listen(self, *subjects: Subject) -> list[bytes]:
        """The payloads that come to any of these subjects."""
        received: list[bytes] = []
        await self.backplane.listen(dict.fromkeys(subjects, received.append))
        return received

    async def follow(self, log: LogName) -> Followed:
        followed = Followed()
        await self.backplane.follow({log: followed})
        return followed

    async def append(self, log: LogName, *payloads: bytes, **options: Any) -> list[Position]:
        """Append one after the other, all in one turn of the loop."""
        futures = [self.backplane.append(log, payload, **options) for payload in payloads]
        return [await future for future in futures]

    async def put(self, log: LogName, key: str, payload: bytes | None) -> Position:
        """Set a key of a log, or with None delete it."""
        return await self.backplane.append(log, payload or b"", key=key, is_deletion=payload is None)

    async def top(self, log: LogName) -> Position:
        return (await self.backplane.read(log, None, 0)).top

    def user(self, name: str) -> UserName:
        return UserName("/ws", name)


class Backplanes:
    """One store, and any number of nodes on it."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.prefix = f"test{next(_prefixes)}"
        self.peers: list[Peer] = []

    async def node(
        self, id: str = "a", *, backplane: Backplane | None = None, is_awaited: bool = True, **options: Any
    ) -> Peer:
        """One more node, connected."""
        key = NodeKey(id, 1)
        peer = Peer(key, backplane or self.make())
        self.peers.append(peer)
        options = {"prefix": self.prefix, "timeout": 10.0, "buffer": 1 << 22, **options}
        await peer.backplane.start(key, peer, **options)
        if is_awaited:
            await eventually(lambda: peer.connected)
        return peer

    async def stop(self) -> None:
        while self.peers:
            await self.peers.pop().backplane.stop()
