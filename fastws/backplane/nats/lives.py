"""Since when logs live: the beginning is in the log itself, and is written down, as it is trimmed like any record."""

from typing import NamedTuple

from ..base import LogName
from .jetstream import JetStream, Message, Stored, Stream
from .marks import ALONE, BEGUN, parse
from .names import Names

__all__ = ["Life", "Lives"]


class Life(NamedTuple):
    """Since when a log lives, and since when its values do; sequences."""

    begun: int
    cleared: int


class Lives:
    """The lives of all logs."""

    def __init__(self, jet: JetStream, names: Names) -> None:
        self._jet, self._names = jet, names

    async def first(self, log: LogName, stream: Stream) -> Stored | None:
        """Returns the oldest message that a log has."""
        found = await self._jet.scan(stream, self._names.records(log), 1, 1)
        return found[0] if found else None

    async def get(self, log: LogName, stream: Stream) -> Life:
        """Returns since when a log lives."""
        found, first = await self._jet.last(stream, [self._names.life(log)]), await self.first(log, stream)
        begun, cleared = map(int, found[0].payload.split()) if found else (0, 0)
        if first is not None and (why := parse(first.headers).what) in BEGUN:
            begun = max(begun, first.sequence)
            cleared = max(cleared, first.sequence if why == "cleared" else 0)
        return Life(begun, cleared)

    async def put(self, log: LogName, stream: Stream, life: Life) -> None:
        """Write it down."""
        await self._jet.store(stream, Message(self._names.life(log), ALONE, b"%d %d" % life))
