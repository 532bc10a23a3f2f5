"""The last event of each cache channel, on all nodes."""

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any, NamedTuple

from .frames import event

__all__ = ["TTL", "Cache", "Cached"]

TTL = 1800.0  # seconds, as Pusher keeps them
MOST = 10_000  # channels
TEND_SECONDS = 60.0


class Cached(NamedTuple):
    """An event, and when it was sent, as Unix time in seconds."""

    name: str
    data: Any
    time: float

    @property
    def left(self) -> int:
        """Seconds that it is kept for."""
        return max(0, round(self.time + TTL - time.time()))

    def frame(self, channel: str) -> dict[str, Any]:
        """Returns what members get."""
        return event(self.name, channel, self.data)


class Cache:
    """Keeps events in a dict, which may be one that all nodes share; the oldest go where there are too many."""

    def __init__(self, events: MutableMapping[str, Any]) -> None:
        self._events = events
        self._timer: asyncio.TimerHandle | None = None

    def put(self, channel: str, name: str, data: Any) -> None:
        """Keep an event instead of the channel's last."""
        self._events[channel] = [name, data, round(time.time(), 3)]
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TEND_SECONDS, self._tend)
        if len(self._events) > MOST:
            self._drop(self._by_age()[: len(self._events) - MOST + MOST // 10])

    def get(self, channel: str) -> Cached | None:
        """Returns the channel's last event, unless that is too old."""
        found = self._events.get(channel)
        cached = None if found is None else Cached(*found)
        return cached if cached is not None and cached.left > 0 else None

    def stop(self) -> None:
        """The server stops."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tend(self) -> None:
        self._timer = None
        self._drop([channel for channel in self._by_age() if self.get(channel) is None])
        if self._events:
            self._timer = asyncio.get_running_loop().call_later(TEND_SECONDS, self._tend)

    def _by_age(self) -> list[str]:
        return sorted(self._events, key=lambda channel: float(self._events[channel][2]))

    def _drop(self, channels: list[str]) -> None:
        for channel in channels:
            del self._events[channel]
