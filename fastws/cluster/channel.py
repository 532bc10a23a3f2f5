"""A channel on this node: what is heard in it, what its log says, and who lags behind."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._core import Endpoint, Run, WebSocket
from ..backplane.base import LogName, Record, Subject
from ..logs import Keep, Position
from .follower import LogFollower, Missed
from .laggards import STEP, Laggards
from .node import Node
from .payloads import message_of
from .people import Crowds

if TYPE_CHECKING:
    from ..manager import ConnectionManager

__all__ = ["Channel"]

MOST_CLOSED = 16  # connections that were lagging when they ended, until they are forgotten


class Channel:
    """A channel that this node listens to, and whose log, if it has one, it follows."""

    def __init__(
        self,
        manager: "ConnectionManager",
        name: str,
        node: Node,
        keep: Keep | None,
        crowds: Crowds | None,
        hear: Callable[[bytes], None],
    ) -> None:
        self._manager = manager
        self._name = name
        self._node = node
        self._place: Any = getattr(manager.listener, "placed", None)
        self._tell_begun: Any = getattr(manager.listener, "log_begun", None)
        self._step = min(STEP, manager.options.max_backlog)  # bytes that a reader may have pending, or is sent at once
        self._laggards: Laggards[WebSocket] = Laggards(self._step)
        self._run: tuple[Position, Position, Run] | None = None  # what some have missed, and others may have
        self._crowds = crowds  # None where there are no other nodes
        self.listening: asyncio.Future[Any] | None = None
        if crowds is not None:
            self.listening = node.listen(self._subject, hear)
            knowing = crowds.use(name)
            if knowing is not None:
                seconds = node.options.backplane_timeout
                self.listening = node.spawn(asyncio.wait((self.listening, knowing), timeout=seconds))
        self.follower: LogFollower | None = None
        if keep is not None:
            self.follower = node.follow(LogName(manager.path, name, keep), self)

    @property
    def _subject(self) -> Subject:
        return Subject("channel", self._manager.path, self._name)

    def drop(self) -> None:
        """Nobody is here any more."""
        if self._crowds is not None:
            self._node.ignore([self._subject])
            self._crowds.unuse(self._name)
        if self.follower is not None:
            self._node.unfollow(self.follower)

    # -- the log

    def on_records(self, records: Sequence[Record]) -> None:
        """The next messages: to all members."""
        self._run = None
        if self.follower is not None and self.follower.log.has_keys:
            for record in records:
                self._tell_latest(record, self.follower)
            return
        for message in self.messages(records):
            Endpoint.broadcast(self._manager, self._name, message)

    def messages(self, records: Sequence[Record]) -> list[Any]:
        """Returns what members get of records; of a deleted key nothing, unless the listener has a frame for that."""
        messages = [None if record.payload is None else message_of(record.payload) for record in records]
        if self._place is None:
            return [message for message in messages if message is not None]
        return [
            self._place(self._name, message, record.position, record.key)
            for message, record in zip(messages, records, strict=True)
        ]

    def on_begun(self, missed: Missed) -> None:
        """The log's thread was lost, or it was cleared."""
        self._run = None
        self._laggards.restart()
        if self._tell_begun is not None:
            self._tell_begun(self._name, missed)

    def send_missed(self, ws: WebSocket, missed: Missed) -> None:
        """Send to a connection what it has missed. It is encoded once for all that have missed the same."""
        if not missed.records:
            return
        first, last = missed.records[0].position, missed.records[-1].position
        if self._run is None or self._run[:2] != (first, last):
            self._run = first, last, self._manager._prepare(self.messages(missed.records))
        ws._send_run(self._run[2])

    # -- latest messages: whoever lags gets of each key only the newest, when it reads again

    def _tell_latest(self, record: Record, follower: LogFollower) -> None:
        lagging: list[WebSocket] = []
        for message in self.messages((record,)):
            _, lagging = self._manager._broadcast_to_ready(self._name, message, self._step)
        if len(self._laggards) > 2 * len(lagging) + MOST_CLOSED:
            for ws in self._laggards:
                if not ws.is_open:
                    self.forget(ws)
        for ws in lagging:
            if self._laggards.skipped(ws, record.position.offset - 1):
                ws._notify_when_drained()
        if record.payload is None:
            self._laggards.deleted(record, follower.table)

    def catch_up(self, ws: WebSocket) -> None:
        """A connection has read all that it was sent: if it lags, it gets what is next."""
        if self.follower is None or ws not in self._laggards:
            return
        step = self._laggards.drained(ws, self.follower.table)
        if step is None:
            return
        if step.is_snapshot and self._tell_begun is not None and self.follower.cursor is not None:
            end = step.records[-1].position if step.records else self.follower.cursor
            self._tell_begun(self._name, Missed(end, True, None, step.records, is_snapshot=True), to=ws)
        else:
            for message in self.messages(step.records):
                ws.send(message)
        if not step.is_last:
            ws._notify_when_drained()

    def forget(self, ws: WebSocket) -> None:
        """A connection has left the channel."""
        self._laggards.forget(ws)
