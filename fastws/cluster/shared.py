"""A dict that all nodes have."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, TypeAlias

import orjson

from ..backplane.base import BackplaneError, LogName, Record
from ..logs import DAY, Latest, Position
from .backoff import Backoff
from .follower import LogFollower, Missed
from .node import Node

__all__ = ["SharedDict"]

logger = logging.getLogger("fastws.cluster")

#: Called with a key, its value (None for a deletion), and whether it is a deletion.
OnChange: TypeAlias = Callable[[str, Any, bool], None]

KEEP = Latest(ttl=365 * DAY)
MISSING: Any = object()


class Write:
    """A value that the store has not confirmed yet, or that has not come back from it. ``payload`` None: deleted."""

    __slots__ = ("id", "payload", "position", "stored")

    def __init__(self, payload: bytes | None) -> None:
        self.payload = payload
        self.id = secrets.token_hex(8)  # so that a second try is none
        self.position: Position | None = None
        self.stored: asyncio.Future[Position] | None = None


class SharedDict(MutableMapping[str, Any]):
    """A dict that all nodes of a server have: ``server.shared(name)``. Keys are str, values JSON.

    Reads are local and never wait. ``d[key] = value`` is seen here at once, and on the other nodes after a round trip;
    while the store is away it waits until that is back. Of two nodes that set one key at once, the same one wins
    everywhere. A value must not be changed in place. A server that starts takes no connections before it has the
    values; what was set before is written then. Without a backplane this is a dict of the process.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: dict[str, Any] = {}
        self._writes: dict[str, Write] = {}  # under way
        self._listeners: list[OnChange] = []
        self._log = LogName("", f"$s:{name}", KEEP)
        self._node: Node | None = None
        self._follower: LogFollower | None = None
        self._known: dict[str, Record] = {}  # the follower's table, as long as the store lost nothing
        self._seen: Position | None = None  # up to where that is true
        self._knowing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<SharedDict {self.name!r}: {self._values!r}>"

    # -- the dict

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a key of a shared dict must be a str, not {key!r}")
        self._set(key, orjson.dumps(value))

    def __delitem__(self, key: str) -> None:
        if key not in self._values:
            raise KeyError(key)
        self._set(key, None)

    async def set(self, key: str, value: Any) -> None:
        """Set a value and wait until the store has it.

        Raises BackplaneError where it does not answer; the value is written as soon as it does.
        """
        self[key] = value
        await self._is_stored(key)

    async def delete(self, key: str) -> None:
        """Delete a key and wait until the store has done it; see `set`. Raises KeyError where there is none."""
        del self[key]
        await self._is_stored(key)

    def on_change(self, listener: OnChange) -> OnChange:
        """Have ``listener(key, value, is_deletion)`` called on this node when a value has changed, wherever it was set.

        May be used as a decorator. A deletion has the value None.
        """
        self._listeners.append(listener)
        return listener

    async def _is_stored(self, key: str) -> None:
        write = self._writes.get(key)
        if write is not None and write.stored is not None:
            await asyncio.shield(write.stored)

    # -- with other nodes

    def join(self, node: Node) -> None:
        """The server starts; what was set before is written now."""
        if node.is_alone:
            return
        self._node = node
        self._follower = node.follow(self._log, self)
        self._knowing = node.spawn(self._know(self._follower))
        for key, value in self._values.items():
            self._write(key, Write(orjson.dumps(value)))

    async def ready(self) -> None:
        """Wait until what other nodes have set is here."""
        if self._knowing is not None:
            await asyncio.shield(self._knowing)

    def on_backplane(self, is_connected: bool) -> None:
        """Whatever waits for the store tries again by itself."""

    def part(self) -> None:
        """The server has stopped."""
        if self._node is not None:
            self._node = self._follower = self._knowing = self._seen = None
            self._values.clear()
            self._writes.clear()

    async def _know(self, follower: LogFollower) -> None:
        await follower.catch_up(None, 0)
        self._learn(follower)

    def _learn(self, follower: LogFollower) -> None:
        """All that the log has."""
        self._known, self._seen = follower.table, follower.cursor
        for key in {**self._values, **self._writes, **follower.table}:
            self._take(key, follower.table.get(key))

    def on_records(self, records: Sequence[Record]) -> None:
        """The next changes."""
        for record in records if self._seen is not None else ():
            self._seen = record.position
            self._take(str(record.key), record)

    def on_begun(self, missed: Missed) -> None:
        """Something is missing here, or in the store: what that has lost is written again."""
        follower = self._follower
        if follower is None or self._seen is None:
            return
        if missed.is_loss:
            for key in {**self._known, **follower.table}:
                self._restore(key, self._known.get(key), follower.table.get(key), self._seen)
        self._learn(follower)

    def _restore(self, key: str, before: Record | None, now: Record | None, seen: Position) -> None:
        """Write again what this node has seen, if the store has an older value, or one that was deleted since."""
        is_old = now is None or (now.position.offset <= seen.offset and now.position.tag <= seen.tag)
        if is_old and key not in self._writes and _payload(before) != _payload(now):
            self._write(key, Write(_payload(before)))

    # -- values

    def _set(self, key: str, payload: bytes | None) -> None:
        """Something is set here."""
        if self._node is not None:
            self._write(key, Write(payload))
        self._show(key, payload)

    def _take(self, key: str, record: Record | None) -> None:
        """The log has a value of a key, or None; it counts unless something was set here that comes after it."""
        write = self._writes.get(key)
        if write is not None:
            if write.position is None or self._seen is None or self._seen.offset < write.position.offset:
                return
            del self._writes[key]
        self._show(key, _payload(record))

    def _show(self, key: str, payload: bytes | None) -> None:
        """Have a value, and tell whoever listens if it is another one."""
        if key in self._values and payload == orjson.dumps(self._values[key]):
            return
        value = None if payload is None else orjson.loads(payload)
        if payload is not None:
            self._values[key] = value
        elif self._values.pop(key, MISSING) is MISSING:
            return
        for listener in list(self._listeners):
            try:
                listener(key, value, payload is None)
            except Exception:
                logger.exception("a listener of the shared dict %r failed", self.name)

    def _write(self, key: str, write: Write) -> None:
        assert self._node is not None
        self._writes[key] = write
        write.stored = self._append(key, write)
        if write.stored.done() and write.stored.exception() is None:  # by the memory of this process
            self._settle(key, write)
        else:
            self._node.spawn(self._confirm(key, write))

    def _append(self, key: str, write: Write) -> "asyncio.Future[Position]":
        assert self._node is not None
        is_deletion = write.payload is None
        return self._node.store.append(self._log, write.payload or b"", key=key, is_deletion=is_deletion, id=write.id)

    async def _confirm(self, key: str, write: Write) -> None:
        """Have the store take a value, however long that takes, unless something else is set meanwhile."""
        backoff = Backoff()
        while self._writes.get(key) is write:
            assert write.stored is not None
            try:
                await asyncio.shield(write.stored)
            except BackplaneError:
                await backoff.pause()
                write.stored = self._append(key, write)
            else:
                self._settle(key, write)
                return

    def _settle(self, key: str, write: Write) -> None:
        """The store has it; whatever comes from there after it counts again."""
        assert write.stored is not None
        write.position = write.stored.result()
        if self._writes.get(key) is write and self._follower is not None and self._seen is not None:
            self._take(key, self._follower.table.get(key))


def _payload(record: Record | None) -> bytes | None:
    return None if record is None else record.payload
