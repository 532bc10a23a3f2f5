"""Kicks: what is to be done with users and connections wherever they are, in a log that every node follows."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import orjson

from .._core import WebSocket
from ..backplane.base import Backplane, BackplaneError, LogName, Record
from ..logs import History, Position
from .backoff import Backoff
from .follower import LogFollower, Missed

__all__ = ["CUT_OFF", "KickFollower", "Kicks", "close_slowly", "kicks_log"]

logger = logging.getLogger("fastws.cluster")

KEEP = History(10_000, 86_400)
MOST_REMEMBERED = 10_000  # kicks that are done once though they come twice
MOST_AT_ONCE = 1000  # as many as the store knows ids
AWAY_SECONDS = 60.0  # without the store, after which one that has lost kicks may have lost any
SAID_AGAIN_SECONDS = 2 * AWAY_SECONDS  # what is older was heard by every node that need not close its connections
PACE_SECONDS = 0.01
CUT_OFF = 1012, "this server was cut off from the others"


class Obeys(Protocol):
    """Whoever does what kicks say."""

    def obey(self, do: str, arguments: list[Any]) -> None:
        """Do it to those who are here."""

    def let_go(self) -> None:
        """Nobody can know who should have gone: close all connections."""


def kicks_log(endpoint: str) -> LogName:
    """Returns the log of an endpoint's kicks."""
    return LogName(endpoint, "$kicks", KEEP)


class Kicks:
    """The kicks of one endpoint, as one node says and hears them.

    Whoever says one does it at once; the others do it when it comes from the log. They are done in the log's order, and
    each once. What a store has lost is appended again by whoever saw it.
    """

    def __init__(self, log: LogName, store: Backplane, id: str, obeys: Obeys, spawn: Callable[[Any], Any]) -> None:
        self.log = log
        self._store = store
        self._id = id
        self._obeys = obeys
        self._spawn = spawn
        self._said = 0
        self._seen: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # by id, in order: when it was done here
        self._waiting: OrderedDict[str, bytes] = OrderedDict()  # not in the store yet
        self._sending: asyncio.Task[None] | None = None
        self._known = time.monotonic()  # when all kicks were last known

    # -- saying

    def say(self, do: str, *arguments: Any) -> None:
        """Have the other nodes do what was done here; raises TypeError for what is not JSON."""
        self._said += 1
        name = f"{self._id}.{self._said}"
        payload = orjson.dumps({"id": name, "do": do, "with": arguments})
        self._remember(name, payload)
        self._send(name, payload)

    def _send(self, id: str, payload: bytes) -> None:
        self._waiting[id] = payload
        if self._sending is None:
            self._sending = self._spawn(self._send_all())

    async def _send_all(self) -> None:
        """Append until the store has everything; an id keeps it from having one twice."""
        backoff = Backoff()
        try:
            while self._waiting:
                some = list(self._waiting.items())[:MOST_AT_ONCE]
                done = [self._store.append(self.log, payload, id=name) for name, payload in some]
                results = await asyncio.gather(*done, return_exceptions=True)
                for (name, _), result in zip(some, results, strict=True):
                    if not isinstance(result, BackplaneError):
                        self._waiting.pop(name, None)
                    if isinstance(result, Exception) and not isinstance(result, BackplaneError):
                        logger.error("a kick of %s cannot be stored", self.log.endpoint, exc_info=result)
                if isinstance(results[-1], BackplaneError):
                    await backoff.pause()
        finally:
            self._sending = None

    async def flush(self) -> None:
        """Wait until the store has all that was said."""
        waiting = set(self._waiting)
        while self._sending is not None and waiting & self._waiting.keys():
            await asyncio.wait([self._sending], timeout=PACE_SECONDS)

    # -- hearing

    def on_records(self, records: Sequence[Record]) -> None:
        """The next kicks."""
        for record in records:
            self._do(record.payload or b"")

    def on_begun(self, missed: Missed) -> None:
        """Kicks are lost for good."""
        logger.error("kicks of %s may be missing (%s): its connections are closed", self.log.endpoint, missed.reason)
        self._obeys.let_go()

    def _do(self, payload: bytes) -> None:
        try:
            kick = orjson.loads(payload)
            name, do, arguments = kick["id"], kick["do"], kick["with"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            logger.error("a kick of %s cannot be read: %.200r", self.log.endpoint, payload)
            return
        if name not in self._seen:
            self._remember(name, payload)
            self._obeys.obey(do, arguments)

    def _remember(self, id: str, payload: bytes) -> None:
        self._seen[id] = time.monotonic(), payload
        if len(self._seen) > MOST_REMEMBERED:
            self._seen.popitem(last=False)

    # -- what the follower finds out

    @property
    def was_away(self) -> bool:
        """Whether all kicks were last known too long ago."""
        return time.monotonic() - self._known > AWAY_SECONDS

    def all_known(self) -> None:
        """Up to now no kick is missing here."""
        self._known = time.monotonic()

    def restore(self, records: Iterable[Record]) -> None:
        """The store has come back with these: do those that are new, and append again what it has lost."""
        since = time.monotonic() - SAID_AGAIN_SECONDS
        mine = [(name, payload) for name, (when, payload) in self._seen.items() if when > since]
        there = set()
        for record in records:
            there.add(_id_of(record.payload or b""))
            self._do(record.payload or b"")
        for name, payload in mine:
            if name not in there:
                self._send(name, payload)


class KickFollower(LogFollower):
    """Follows kicks: where the store has lost some, they are not given up but appended again."""

    kicks: Kicks
    is_serving = False
    """Whether there may be connections already: whatever was said since they came has to be known."""

    async def _find_end(self) -> None:
        is_first = self.cursor is None
        await super()._find_end()
        if is_first and self.is_serving and self.cursor is not None:
            self.kicks.on_begun(Missed(self.cursor, False, "new", ()))
        self.kicks.all_known()

    async def _read_on(self, cursor: Position) -> None:
        await super()._read_on(cursor)
        self.kicks.all_known()

    async def _be_lost(self, cursor: Position) -> None:
        await self._begin_anew("unknown")

    async def _begin_anew(self, reason: str) -> None:
        """What was seen is not there: trimmed, expired, or lost by the store.

        If all that is there was never too much to be kept, nothing else is missing but what the store has lost, and
        that is appended again by whoever saw it; unless this node was away for so long that it may be the only one.
        """
        was_away = self.kicks.was_away
        read = await self._store.snapshot(self.log)
        self._drop_ring()
        self.cursor = self._base = read.top
        self.kicks.restore(read.records)
        if was_away or len(read.records) >= self.log.keep.size:
            self.kicks.on_begun(Missed(read.top, False, reason, ()))

    def reconcile(self, top: Position) -> None:
        """The store's end of the log was looked up."""
        super().reconcile(top)
        if self.is_ready:
            self.kicks.all_known()


async def close_slowly(connections: Sequence[WebSocket], rate: float, code: int, reason: str) -> None:
    """Close connections, so many a second (0: all at once)."""
    begin, closed = time.monotonic(), 0
    for ws in connections:
        early = begin + closed / rate - time.monotonic() if rate else 0
        if early > 0 and ws.is_open:
            await asyncio.sleep(max(early, PACE_SECONDS))
        closed += ws.is_open
        ws.close(code, reason)


def _id_of(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)["id"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
