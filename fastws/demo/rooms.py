"""In which channels each user is: the tabs of a user are in the same ones, whatever node each of them is on."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from fastws.cluster.shared import SharedDict

__all__ = ["Rooms"]

BETWEEN = "\n"  # which no name contains


class Rooms:
    """What is known on all nodes.

    `changed` is called on each with a user, a channel, whether the user is in there now, and by whose invitation.
    """

    def __init__(self, shared: SharedDict, changed: Callable[[str, str, bool, str | None], None]) -> None:
        self._shared: MutableMapping[str, Any] = shared
        self._channels: dict[str, dict[str, None]] = {}  # by user
        self._tell = changed
        shared.on_change(self._changed)

    def of(self, user: str) -> list[str]:
        """Returns the channels of a user."""
        return list(self._channels.get(user, ()))

    def has(self, user: str, channel: str) -> bool:
        """Returns whether a user is in a channel."""
        return user + BETWEEN + channel in self._shared

    def enter(self, user: str, channel: str, by: str | None = None) -> None:
        """A user is in a channel, maybe invited by another."""
        if not self.has(user, channel):
            self._shared[user + BETWEEN + channel] = by

    def leave(self, user: str, channel: str) -> None:
        """A user is not in a channel any more."""
        self._shared.pop(user + BETWEEN + channel, None)

    def end(self, user: str) -> None:
        """A user is gone from everywhere."""
        for channel in self.of(user):
            self.leave(user, channel)

    def _changed(self, key: str, by: Any, is_deletion: bool) -> None:
        user, _, channel = key.partition(BETWEEN)
        channels = self._channels.setdefault(user, {})
        if is_deletion:
            channels.pop(channel, None)
        else:
            channels[channel] = None
        if not channels:
            del self._channels[user]
        self._tell(user, channel, not is_deletion, by)
