"""What is told of a followed log, and what is known of it."""

from ...logs import Position
from ..base import Follower, Record
from .marks import BEGUN, DELETION, FIRST, parse
from .names import header

__all__ = ["Following"]

KNOWN = 64  # positions that are remembered


class Following:
    """A log that is followed."""

    __slots__ = ("follower", "known", "newest", "number")

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.number = b""
        self.forget()

    def forget(self) -> None:
        """The store may be another one."""
        self.known: dict[int, int] = {}  # tags by sequences
        self.newest = 0

    def know(self, position: Position) -> None:
        """A position was seen to be of the log."""
        if self.known.get(position.offset, position.tag) != position.tag:
            self.known.clear()
            self.newest = 0
        self.known[position.offset] = position.tag
        self.newest = max(self.newest, position.offset)
        if len(self.known) > KNOWN:
            del self.known[next(iter(self.known))]

    def tell(self, subject: bytes, headers: bytes, payload: bytes) -> None:
        """Tell the follower what the server has stored. It says only the sequence of what was before."""
        said = parse(headers)
        position = Position(int(header(headers, b"Nats-Sequence")), said.tag)
        before = int(header(headers, b"Nats-Last-Sequence"))
        previous = Position(before, self.known.get(before, 0))
        self.know(position)
        if said.what in BEGUN:
            self.follower.on_begun(position, said.what)
        elif said.what != FIRST:
            self.follower.on_records(
                previous, (Record(position, said.key, None if said.what == DELETION else payload),)
            )
