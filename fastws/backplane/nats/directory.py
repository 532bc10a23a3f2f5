"""Users and nodes in JetStream: each user on a node, and each node, is a subject.

The order in which the server stores decides. Whoever claims or releases a user asks how things were at that sequence,
so of two that do so at once exactly one is first, or last. Whoever beats or buries says which beat is the last known.
"""

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from ..base import Beat, NodeKey, NodeState, UserName
from .jetstream import PAGE, WRONG_LAST, JetStream, Message, Rejected, Stored, Stream
from .names import Names, header
from .wire import headed

__all__ = ["Directory"]

LINGER = 10.0  # seconds that others may ask whether somebody was there a moment ago
TRIES = 50
ONCE = "Nats-Expected-Last-Subject-Sequence: "


class Directory:
    """Users and nodes of one prefix."""

    def __init__(self, jet: JetStream, names: Names, replicas: int, node: NodeKey) -> None:
        self._jet, self._names = jet, names
        self._stream = Stream(names.directory, lambda first: names.directory_config(replicas, first))
        self._released: deque[tuple[float, str, int]] = deque()  # when, and the message that says so
        self._nonce = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._newest: tuple[Message, int] | None = None  # that this node has stored, and its sequence
        self._is_in_doubt = False
        self.node = node

    def rename(self, node: NodeKey) -> None:
        """The node goes on under its next incarnation."""
        self.node = node
        self._newest = None

    def reconnected(self) -> None:
        """The store may be another one."""
        self._is_in_doubt = True

    # -- users

    async def claim(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """This node has users. Returns who else had them then."""
        node = self.node
        had = await self._change(users, node, is_there=True)
        return [[other for other in nodes if other != node] for nodes in had]

    async def release(self, users: Sequence[UserName], node: NodeKey) -> list[list[NodeKey]]:
        """A node has users no more. Returns who still had them then."""
        return await self._change(users, node, is_there=False)

    async def _change(self, users: Sequence[UserName], node: NodeKey, *, is_there: bool) -> list[list[NodeKey]]:
        """Store what is so of users on a node, and find out how it was just then.

        Where nobody else's messages came between ours, one question is enough.
        """
        subjects = [self._names.user(node, user) for user in users]
        if not users:
            return []
        messages = [
            Message(subject, self._once(), orjson.dumps([str(node), *user] if is_there else []))
            for subject, user in zip(subjects, users, strict=True)
        ]
        acks = await asyncio.gather(*[self._jet.store(self._stream, message) for message in messages])
        sequences = [ack.sequence for ack in acks]
        self._remember(messages[-1], sequences[-1])
        if not is_there:
            now = itertools.repeat(time.monotonic(), len(users))
            self._released += zip(now, subjects, sequences, strict=True)
        first, asked = 0, []
        for at, sequence in enumerate(sequences, 1):
            if at == len(sequences) or sequences[at] != sequence + 1 or at - first == PAGE:
                asked.append(self._find(users[first:at], sequence))
                first = at
        return [nodes for part in await asyncio.gather(*asked) for nodes in part]

    def _once(self) -> str:
        """Returns a header by which a message is stored once, also when it is sent again after a lost connection."""
        return f"Nats-Msg-Id: {self._nonce}.{next(self._numbers)}\r\n"

    async def find(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """Returns which nodes have each user."""
        return await self._find(users) if users else []

    async def _find(self, users: Sequence[UserName], up_to: int = 0) -> list[list[NodeKey]]:
        """Returns which nodes had each user at a sequence; a replica that has not yet stored that is asked again."""
        subjects = [self._names.user(None, user) for user in users]
        for attempt in range(TRIES):
            stored = await self._jet.last(self._stream, subjects, up_to)
            if not up_to or any(message.sequence == up_to for message in stored):
                break
            await asyncio.sleep(0.002 * attempt)
        found: dict[UserName, list[NodeKey]] = {}
        for message in stored:
            node, *user = orjson.loads(message.payload) or [None]
            if node is not None:
                found.setdefault(UserName(*user), []).append(NodeKey.parse(node))
        return [found.get(user, []) for user in users]

    async def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns the users of a node."""
        users: dict[str, Any] = {}
        for message in await self._jet.scan(self._stream, self._names.users(node)):
            users[message.subject] = orjson.loads(message.payload)
        return [UserName(*entry[1:]) for entry in users.values() if entry]

    def _forget_released(self, until: float) -> None:
        """Remove what says that somebody is no more there, and all before it, unless he or she has come back."""
        while self._released and self._released[0][0] <= until:
            _, subject, sequence = self._released.popleft()
            headers = f"{ONCE}{sequence}\r\nNats-Rollup: sub\r\nNats-TTL: 1s\r\n"
            self._jet.link.write(headed(subject, "", headers, b"[]"))

    # -- nodes

    async def beat(self, info: bytes) -> Beat:
        """Count this node's beats up."""
        self._forget_released(time.monotonic() - LINGER)
        node = self.node
        while True:
            before = await self._entry(node)
            was_known = before is not None and before.burier is None and await self._is_whole()
            try:
                await self._write(node, before, Entry(before.beats + 1 if before and was_known else 1, None, info))
            except Rejected as error:
                if error.code != WRONG_LAST:
                    raise
            else:
                return Beat(await self._alive(), was_known)

    def _remember(self, message: Message, sequence: int) -> None:
        if self._newest is None or self._newest[1] < sequence:
            self._newest = message, sequence

    async def _is_whole(self) -> bool:
        """Whether the store, once it was away, still has what this node stored last, and so all before it."""
        if not self._is_in_doubt or self._newest is None:
            return True
        message, sequence = self._newest
        found = await self._jet.last(self._stream, [message.subject])
        self._is_in_doubt, self._newest = False, None
        once = message.headers.rpartition("Nats-Msg-Id: ")[2].strip().encode()
        return any(stored.sequence == sequence and header(stored.headers, b"Nats-Msg-Id") == once for stored in found)

    async def bury(self, node: NodeKey, beats: int) -> list[NodeKey]:
        """Take a node for dead unless it has beaten since."""
        entry = await self._entry(node)
        if entry is None or entry.burier is not None or entry.beats != beats or not await self._take(node, entry):
            return []
        jobs, entries = [node], await self._entries()
        for job in jobs:
            inherited = [other for other, entry in entries.items() if entry.burier == job and other not in jobs]
            jobs += [other for other in inherited if await self._take(other, entries[other])]
        return jobs

    async def _take(self, node: NodeKey, before: "Entry") -> bool:
        """Returns whether it is this node that buries a dead one."""
        try:
            await self._write(node, before, Entry(before.beats, self.node, b""))
        except Rejected as error:
            if error.code != WRONG_LAST:
                raise
            return False
        return True

    async def buried(self, node: NodeKey) -> None:
        """All that a dead node had is released."""
        await self._jet.purge(self._stream, filter=self._names.node(node))

    async def leave(self) -> None:
        """This node stops."""
        self._forget_released(time.monotonic())
        await self._jet.purge(self._stream, filter=self._names.node(self.node))

    async def _alive(self) -> dict[NodeKey, NodeState]:
        entries = await self._entries()
        return {node: NodeState(entry.beats, entry.info) for node, entry in entries.items() if entry.burier is None}

    async def _entries(self) -> dict[NodeKey, "Entry"]:
        stored = await self._jet.last(self._stream, [self._names.node(None)])
        return dict(map(_parse, stored))

    async def _entry(self, node: NodeKey) -> "Entry | None":
        stored = await self._jet.last(self._stream, [self._names.node(node)])
        return _parse(stored[0])[1] if stored else None

    async def _write(self, node: NodeKey, before: "Entry | None", entry: "Entry") -> None:
        """Replace what is known of a node; raises Rejected if somebody else has done so."""
        condition = f"{ONCE}{before.sequence if before else 0}\r\n"
        head = orjson.dumps([str(node), entry.beats, entry.burier and str(entry.burier)])
        headers = condition + self._once()
        message = Message(self._names.node(node), headers, head + b"\n" + entry.info)
        ack = await self._jet.store(self._stream, message)
        if node == self.node:
            self._remember(message, ack.sequence)


class Entry(NamedTuple):
    """What is stored of a node."""

    beats: int
    burier: NodeKey | None
    """Who releases what it had, now that it is dead."""
    info: bytes
    sequence: int = 0


def _parse(stored: Stored) -> tuple[NodeKey, Entry]:
    head, _, info = stored.payload.partition(b"\n")
    node, beats, burier = orjson.loads(head)
    return NodeKey.parse(node), Entry(beats, burier and NodeKey.parse(burier), info, stored.sequence)
