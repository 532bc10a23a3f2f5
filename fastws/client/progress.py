"""How far a connection is in what a channel keeps."""

from .events import Subscribed

__all__ = ["Progress"]


class Progress:
    """The position in one channel's log: where to resume.

    It moves when all listeners have returned. What one of them raised at comes once more, after the next connection is
    made, with all that followed it; what fails again is passed over.
    """

    def __init__(self) -> None:
        self.position: str | None = None
        self._offset = -1  # of the last message
        self._is_held = False  # the position stays until the next connection
        self._failed: str | None = None  # the position that a listener raised at

    def begin(self, subscribed: Subscribed, is_well: bool) -> None:
        """The server has said what it sends from now on; `is_well`: no listener raised."""
        if subscribed.snapshot:
            self.position = None
        self._offset = offset_of(self.position if subscribed.recovered else subscribed.position)
        self._is_held = False
        # Of those missed, the position comes with each.
        self._move(None if subscribed.recovered and subscribed.count else subscribed.position, is_well)

    def is_new(self, position: str | None) -> bool:
        """Returns whether a message has not come before."""
        return position is None or offset_of(position) > self._offset

    def passed(self, position: str | None, is_well: bool) -> None:
        """A message was given to all listeners; `is_well`: none raised."""
        if position is not None:
            self._offset = offset_of(position)
            self._move(position, is_well)

    def _move(self, position: str | None, is_well: bool) -> None:
        if not is_well and not self._is_held and self._failed != position:
            self._is_held, self._failed = True, position
        if position is not None and not self._is_held:
            self.position = position


def offset_of(position: str | None) -> int:
    """Returns the number before the dash, which only grows; -1 where there is no position."""
    return -1 if position is None else int(position.partition("-")[0])
