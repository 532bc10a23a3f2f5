"""The values of keys: of each the newest record, when it is about to go from its log.

A log with keys is not trimmed by the server. Now and then somebody stores the newest record of each key elsewhere, and
only then removes what is over from the log. Whoever does that says which value was the last one known, so of two that
do so at once one gives up; at any time each value is in the log, or among the values, or both.
"""

import asyncio
import random

from ..base import LogName
from .jetstream import WRONG_LAST, Ack, JetStream, Message, Rejected, Stored, Stream
from .lives import Lives
from .marks import ALONE, BEGUN, DELETION, ONCE, RECORD, mark, parse, position_of
from .names import WINDOW, Names

__all__ = ["Values"]

SETTLE = 1.0  # seconds until all replicas have the values, so that nobody reads the old ones beside a trimmed log
LEAST_RECORDS = 128  # appended between two times that values are stored, on average


class Values:
    """The values of all logs with keys."""

    def __init__(self, jet: JetStream, names: Names, lives: Lives) -> None:
        self._jet, self._names, self._lives = jet, names, lives
        self._busy: set[LogName] = set()

    def appended(self, log: LogName, stream: Stream) -> None:
        """Sometimes store values, so that it is done about as often as it has to be, and nobody need count."""
        if random.random() * max(log.keep.size // 2, LEAST_RECORDS) < 1 and log not in self._busy:
            self._busy.add(log)
            self._jet.spawn(self._store_and_trim(log, stream))

    async def _store_and_trim(self, log: LogName, stream: Stream) -> None:
        try:
            records = await self.store(log, stream)
            over = len(records) - log.keep.size - 1
            if over > 0:
                await asyncio.sleep(SETTLE)
                if parse(records[0].headers).what in BEGUN:
                    await self._lives.put(log, stream, await self._lives.get(log, stream))
                await self._jet.purge(stream, filter=self._names.records(log), seq=records[over].sequence)
        finally:
            self._busy.discard(log)

    async def get(self, log: LogName, stream: Stream) -> list[Stored]:
        """Returns what is stored of all keys, with deletions."""
        return await self._jet.scan(stream, self._names.values(log, None))

    async def store(self, log: LogName, stream: Stream) -> list[Stored]:
        """Store the value of each key. Returns the records whose values are stored: all, or none."""
        records = await self._jet.scan(stream, self._names.records(log))
        newest = {
            self._names.values(log, key): record for record in records if (key := parse(record.headers).key) is not None
        }
        known = {stored.subject: stored for stored in await self._jet.last(stream, list(newest))}
        writes = [
            self._jet.store(stream, _value(subject, record, known.get(subject)))
            for subject, record in newest.items()
            if subject not in known or position_of(known[subject]) < position_of(record)
        ]
        done: list[Ack | BaseException] = await asyncio.gather(*writes, return_exceptions=True)
        for failure in done:
            if isinstance(failure, Rejected) and failure.code == WRONG_LAST:
                return []
            if isinstance(failure, BaseException):
                raise failure
        return records


def _value(subject: str, record: Stored, known: Stored | None) -> Message:
    said = parse(record.headers)
    condition = f"{ONCE}{known.sequence if known else 0}\r\n"
    if said.what == DELETION:
        head = f"{mark(said.tag, DELETION, said.key, record.sequence)}{ALONE}Nats-TTL: {WINDOW:.0f}s\r\n"
        return Message(subject, head + condition)
    return Message(subject, mark(said.tag, RECORD, said.key, record.sequence) + ALONE + condition, record.payload)
