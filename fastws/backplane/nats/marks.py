"""What our header says of a message in a log's stream, and what a record is made of."""

from typing import NamedTuple

import orjson

from ...logs import Position
from ..base import Record
from .jetstream import Stored
from .names import header

__all__ = ["ALONE", "BEGUN", "DELETION", "FIRST", "ONCE", "RECORD", "Mark", "mark", "parse", "position_of", "record_of"]

RECORD, DELETION, FIRST = "+", "-", "="  # FIRST is the position before the first record
BEGUN = ("unknown", "cleared")  # why a log began anew

NOBODYS = b"0 = 0 "  # a message that somebody else has put there is no record
ALONE = "Nats-Rollup: sub\r\n"  # all before it on its subject is removed
ONCE = "Nats-Expected-Last-Subject-Sequence: "


class Mark(NamedTuple):
    """What a message is: its tag, one of the above, and the key of a record."""

    tag: int
    what: str
    key: str | None
    sequence: int
    """That of the record, where this is the value of a key; else 0."""


def mark(tag: int, what: str, key: str | None = None, sequence: int = 0) -> str:
    """Returns the header."""
    return f"Fw: {tag} {what} {sequence} {'' if key is None else orjson.dumps(key).decode()}\r\n"


def parse(headers: bytes) -> Mark:
    """Returns what the header says."""
    tag, what, sequence, key = (header(headers, b"Fw") or NOBODYS).split(b" ", 3)
    return Mark(int(tag), what.decode(), orjson.loads(key) if key else None, int(sequence))


def position_of(stored: Stored) -> Position:
    """Returns the position of a record, or of one that a value is from."""
    said = parse(stored.headers)
    return Position(said.sequence or stored.sequence, said.tag)


def record_of(stored: Stored) -> Record:
    """Returns a record, or the one that a value is from."""
    said = parse(stored.headers)
    position = Position(said.sequence or stored.sequence, said.tag)
    return Record(position, said.key, None if said.what == DELETION else stored.payload)
