"""The hub: the store of several workers on one machine, in the process that supervises them."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

from msgspec import msgpack

from ..logs import Position
from .base import LogName, NodeKey, Read, Record, Subject, UserName
from .hub_frames import (
    ANSWER,
    BEGUN,
    CALLS,
    FAILED,
    FREE,
    GONE,
    HEAD,
    LOST,
    MESSAGE,
    RECORDS,
    Link,
    Place,
    frame,
    log_key,
    log_of,
    subject_key,
)
from .memory import MemoryStore

__all__ = ["HubServer"]

logger = logging.getLogger("fastws.hub")

LIMIT = 16 * 1024 * 1024  # bytes that may wait for a worker that does not read
BY_OPERATION = {call.operation: call for call in CALLS.values()}


class HubServer:
    """A `MemoryStore`, and the workers that use it."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.store = MemoryStore()
        self.workers: list[HubWorker] = []
        self.listeners: dict[bytes, list[HubWorker]] = {}  # by subject
        self.relays: dict[bytes, Relay] = {}  # by log
        self._limit = limit
        self._told: dict[NodeKey, set[HubWorker]] = {}  # who here knows of a node that nobody has buried

    async def connect(self, end: socket.socket) -> "HubWorker":
        """Serve the worker at the other end of a socket pair, until it closes that."""
        worker = HubWorker(self, self._limit)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=end)
        except asyncio.CancelledError:
            worker.connection_lost(None)  # which uvloop does not say
            raise
        return worker

    async def stop(self) -> None:
        """Close all connections; what was put in is written as far as the workers read it at once."""
        await asyncio.gather(*(worker.close(0) for worker in self.workers))

    def tell_of_the_gone(self) -> None:
        """See to it that somebody knows of each node that is to be buried: all who are here when it ends, or later."""
        self._told = {node: self._told.get(node, set()) for node in self.store.gone}
        for node, told in self._told.items():
            told.intersection_update(self.workers)
            if not told:
                told.update(worker for worker in self.workers if worker.is_known)
                for worker in told:
                    worker.put(frame(GONE, 0, msgpack.encode(node)))


class Relay:
    """One log: its records, encoded once, to the workers that follow it."""

    def __init__(self, log: LogName) -> None:
        self.log = log
        self.workers: list[HubWorker] = []
        self._key = log_key(log.endpoint, log.name)

    def on_records(self, previous: Position, records: Sequence[Record]) -> None:
        """Records were appended."""
        self._tell(RECORDS, (previous, records))

    def on_begun(self, position: Position, reason: str) -> None:
        """The log begins anew."""
        self._tell(BEGUN, (position, reason))

    def _tell(self, operation: int, what: Any) -> None:
        whole = frame(operation, len(self._key), self._key + msgpack.encode(what))
        for worker in self.workers:
            worker.offer(whole)


class HubWorker(Link):
    """One worker: what it asks is done at once, in order. The methods named as a call are its answers."""

    def __init__(self, hub: HubServer, limit: int) -> None:
        super().__init__(limit)
        self._hub = hub
        self._store = hub.store
        self._node = NodeKey("", 0)
        self.is_known = False
        """Whether it has said which node it is."""
        self._listened: set[bytes] = set()
        self._followed: set[bytes] = set()
        self._missed = 0
        self._has_left = False

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._hub.workers.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The worker has ended."""
        super().connection_lost(error)
        if self not in self._hub.workers:
            return
        self._hub.workers.remove(self)
        self.ignore(list(self._listened))
        for key in list(self._followed):
            self._unfollow(key)
        if self.is_known and not self._has_left:
            self._store.end(self._node)
        self._hub.tell_of_the_gone()

    def pause_writing(self) -> None:
        """It does not read: nothing more is done for it until it does, so that its answers need no memory either."""
        super().pause_writing()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._missed:
            self.put(frame(LOST, self._missed, b""))
            self._missed = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self.data_received(b"")

    def offer(self, whole: bytes) -> None:
        """Send a frame, unless the worker is too far behind."""
        if self.is_full:
            self._missed += 1
        else:
            self.put(whole)

    def take(self, data: bytes) -> int:
        position, end = 0, len(data)
        head, listeners, unpack = HEAD.size, self._hub.listeners, HEAD.unpack_from
        while end - position >= head and not self.is_full:
            length, operation, number = unpack(data, position)
            body = position + head
            stop = body + length
            if stop > end:
                break
            if operation == MESSAGE:
                audience = listeners.get(data[body : body + number])
                if audience:
                    whole = data[position:stop]
                    for worker in audience:
                        if worker is not self:
                            worker.offer(whole)
            else:
                self._answer(operation, number, data[body:stop])
            position = stop
        return position

    def _answer(self, operation: int, number: int, body: bytes) -> None:
        call = BY_OPERATION[operation]
        try:
            answer = frame(ANSWER, number, msgpack.encode(getattr(self, call.name)(*call.arguments.decode(body))))
        except Exception as error:
            logger.exception("%s failed", call.name)
            answer = frame(FAILED, number, str(error).encode())
        if number != FREE:
            self.put(answer)

    # -- messages

    def listen(self, subjects: list[bytes]) -> None:
        for subject in subjects:
            if subject not in self._listened:
                self._listened.add(subject)
                self._hub.listeners.setdefault(subject, []).append(self)

    def ignore(self, subjects: list[bytes]) -> None:
        for subject in subjects:
            if subject in self._listened:
                self._listened.discard(subject)
                audience = self._hub.listeners[subject]
                audience.remove(self)
                if not audience:
                    del self._hub.listeners[subject]

    def route(self, users: list[UserName], payload: bytes) -> None:
        nodes = dict.fromkeys(node.id for user in users for node in self._store.find(user))
        for name in nodes:
            subject = subject_key(Subject("node", "", name))
            whole = frame(MESSAGE, len(subject), subject + payload)
            for worker in self._hub.listeners.get(subject, ()):
                if worker is not self:
                    worker.offer(whole)

    # -- logs

    def follow(self, places: list[Place]) -> None:
        for place in places:
            key = log_key(place.endpoint, place.name)
            if key in self._followed:
                continue
            self._followed.add(key)
            relay = self._hub.relays.get(key)
            if relay is None:
                relay = self._hub.relays[key] = Relay(log_of(place))
                self._store.follow(relay.log, relay, relay)
            relay.workers.append(self)

    def unfollow(self, places: list[Place]) -> None:
        for place in places:
            self._unfollow(log_key(place.endpoint, place.name))

    def _unfollow(self, key: bytes) -> None:
        if key not in self._followed:
            return
        self._followed.discard(key)
        relay = self._hub.relays[key]
        relay.workers.remove(self)
        if not relay.workers:
            del self._hub.relays[key]
            self._store.unfollow(relay.log, relay)

    def append(self, place: Place, payload: bytes, key: str | None, is_deletion: bool, id: str | None) -> Position:
        return self._store.append(log_of(place), payload, key, is_deletion, id)

    def read(self, place: Place, since: Position | None, limit: int) -> Read:
        found = self._store.log(log_of(place))
        return Read("ok", found.top, ()) if since is None else found.read(since, limit)

    def snapshot(self, place: Place) -> Read:
        return self._store.log(log_of(place)).snapshot()

    def tops(self, places: list[Place]) -> list[Position]:
        return [self._store.log(log_of(place)).top for place in places]

    def broken(self, place: Place, seen: Position) -> Position:
        return self._store.begin(log_of(place), "unknown", seen)

    def clear(self, place: Place) -> Position:
        return self._store.begin(log_of(place), "cleared")

    # -- users and nodes

    def hello(self, node: NodeKey) -> None:
        self._node, self.is_known = node, True
        self._hub.tell_of_the_gone()

    def rename(self, node: NodeKey) -> None:
        self._node = node

    def claim(self, users: list[UserName]) -> list[list[NodeKey]]:
        return [self._store.claim(user, self._node) for user in users]

    def release(self, users: list[UserName], node: NodeKey | None) -> list[list[NodeKey]]:
        return [self._store.release(user, node or self._node) for user in users]

    def find(self, users: list[UserName]) -> list[list[NodeKey]]:
        return [self._store.find(user) for user in users]

    def holdings(self, node: NodeKey) -> list[UserName]:
        return self._store.holdings(node)

    def beat(self, info: bytes) -> Any:
        return self._store.beat(self._node, info)

    def bury(self, node: NodeKey, beats: int) -> list[NodeKey]:
        return self._store.bury(node, beats, self._node)

    def buried(self, node: NodeKey) -> None:
        self._store.buried(node)

    def leave(self) -> None:
        self._has_left = True
        self._store.leave(self._node)
