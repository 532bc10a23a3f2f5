"""What a channel keeps of its messages: history, or the latest value of each key; positions in it."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeAlias

from .errors import ConfigurationError

__all__ = ["Entry", "History", "Keep", "Latest", "Page", "Position"]

DAY = 24 * 3600.0  # seconds
MOST_ENTRIES = 100_000
MOST_OFFSET = 2**53 - 1
MOST_DIGITS = 36  # of a position as text
MOST_TTL = 365 * DAY


class Position(NamedTuple):
    """The place of an entry in a log: its number, which only grows, and its time in µs by the store's clock.

    The tag tells apart entries that have the same number in two lives of a log, such as before and after a store came
    back with older data. A client sees positions as text, and compares nothing but the offset.
    """

    offset: int
    tag: int

    def __str__(self) -> str:
        return f"{self.offset}-{self.tag}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the position that ``str()`` made the text of; raises ValueError for any other text."""
        offset, dash, tag = text.partition("-")
        if not (dash and offset.isascii() and offset.isdigit() and tag.isascii() and tag.isdigit()):
            raise ValueError(f"{text!r} is not a position: they look like '120-1764010000123456'")
        if len(text) > MOST_DIGITS or int(offset) > MOST_OFFSET:
            raise ValueError("this is out of range for a position")
        return cls(int(offset), int(tag))


class Entry(NamedTuple):
    """One message of a log. ``key`` is None but in a `Latest` log; ``message`` is None for a key that was deleted."""

    position: Position
    key: str | None
    message: Any
    """As it was published; where fastws.v1 is spoken any JSON value, else ``str`` or ``bytes``."""


class Page(NamedTuple):
    """A part of a log: what ``history`` of a ConnectionManager returns."""

    entries: list[Entry]
    position: Position
    """Of the log's end."""
    recovered: bool
    """Whether nothing is missing between the position asked for and the entries."""
    reason: str | None
    """Why something is missing: "trimmed", "unknown" or "too_many"; None if nothing is."""


@dataclass(frozen=True)
class History:
    """A channel keeps its last messages: everybody gets all of them, in one order, and may come back for them.

    ``size`` is how many are kept at least, ``ttl`` for how many seconds after the last one.
    """

    size: int = 100
    ttl: float = 300

    def __post_init__(self) -> None:
        _check(self, "size", 1, MOST_ENTRIES)
        _check(self, "ttl", 1, MOST_TTL)


@dataclass(frozen=True)
class Latest:
    """A channel keeps the newest message of each key.

    ``ttl`` is for how many seconds after the last change; ``changes`` how many changes are kept, so that a client that
    comes back is told only what has changed. One that was away for longer gets everything.
    """

    ttl: float = 3600
    changes: int = 1000

    def __post_init__(self) -> None:
        _check(self, "ttl", 1, MOST_TTL)
        _check(self, "changes", 1, MOST_ENTRIES)

    @property
    def size(self) -> int:
        """Entries kept at least."""
        return self.changes


Keep: TypeAlias = History | Latest


def _check(keep: Any, name: str, least: float, most: float) -> None:
    value = getattr(keep, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or (name != "ttl" and not isinstance(value, int)):
        what = "a number of seconds" if name == "ttl" else "a whole number"
        raise ConfigurationError(
            f"{type(keep).__name__}({name}={value!r}): {name} must be {what}, {least:,} to {most:,.0f}"
        )
