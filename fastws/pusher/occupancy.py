"""Which channels are occupied on any node: told once, when the first comes and the last has gone."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..manager import ConnectionManager
from ..presence import Stay
from .crowded import Crowded

__all__ = ["Occupancy"]

ENDPOINT = "pusher:channels"  # whose channels these are, for other nodes
PATIENCE = 60.0  # seconds that a channel is followed until the store has what was written last
SOMEBODY = ""  # is in a channel, whoever that is


class Occupancy(Crowded):
    """Calls ``tell`` with "channel_occupied" or "channel_vacated", and a channel.

    Of several nodes the one tells whose first member came before those of all others, or whose last one left after
    them: all nodes write that down in one log, whose order decides.
    """

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._since = 0.0
        self._written: set[str] = set()  # channels of which the log says that somebody is there, on this node

    def begin(self, manager: ConnectionManager) -> None:
        """The server starts."""
        self._since = round(time.time(), 2)
        self._meet(manager, ENDPOINT, ("*",), self._is_written)

    def part(self) -> None:
        """The server has stopped."""
        super().part()
        self._written.clear()

    def opened(self, channel: str) -> None:
        """A channel has its first member on this node."""
        if self._crowds is None:
            self._tell("channel_occupied", channel)
            return
        knowing = self._crowds.use(channel)
        if knowing is not None and knowing.done():
            self._crowds.changed(channel, SOMEBODY)  # else it is written once it is known who is elsewhere

    def closed(self, channel: str) -> None:
        """A channel has no members on this node any more."""
        if self._crowds is None:
            self._tell("channel_vacated", channel)
            return
        is_to_be_written = self._crowds.has_written(channel, SOMEBODY)
        self._crowds.changed(channel, SOMEBODY)
        seconds = PATIENCE if is_to_be_written else 0
        asyncio.get_running_loop().call_later(seconds, self._let_go, channel)

    def _is_written(self, channel: str, user: Any, is_there: bool) -> None:
        assert self._crowds is not None
        is_first_or_last = self._crowds.stay(channel, SOMEBODY) is None
        if is_there and channel not in self._written:
            self._written.add(channel)
            if is_first_or_last:
                self._tell("channel_occupied", channel)
        elif not is_there and channel in self._written:
            self._written.discard(channel)
            if is_first_or_last:
                self._tell("channel_vacated", channel)
            asyncio.get_running_loop().call_soon(self._let_go, channel)

    def _let_go(self, channel: str) -> None:
        if self._crowds is not None and not self.here(channel):
            self._crowds.unuse(channel)

    # -- what `Crowds` asks and tells

    def here(self, channel: str) -> Mapping[Any, Stay]:
        """Returns somebody, if anybody is in a channel on this node."""
        is_there = self._manager is not None and self._manager._count(channel) > 0
        return {SOMEBODY: (self._since, 1)} if is_there else {}

    def stay_here(self, channel: str, user: Any) -> Stay | None:
        """Returns the same."""
        return self.here(channel).get(user)

    def update(self, channel: str, user: Any) -> None:
        """Whoever came or went elsewhere is told of there."""

    def settle(self, channel: str) -> None:
        """Nobody waits."""
