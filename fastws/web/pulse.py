"""The pulse of a server: what is on it and what goes through it, once a second, for the last five minutes."""

import asyncio
import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..hub import Hub
from ..manager import ConnectionManager

__all__ = ["HISTORY", "Pulse", "Sample"]

HISTORY = 300  # seconds, one sample each
SECOND = 1.0
LOOK = 0.25  # seconds between two looks at the loop's lag
CLOSE_LOOK = 0.1  # the same, while somebody watches
DROPS = "dropped_oldest", "dropped_newest", "closed_slow", "closed_unfinished"

clock = time.perf_counter  # the loop's own stands still while a callback runs


class Sample(NamedTuple):
    """One second: what there is at its end, and what went through in it, as rates per second."""

    time: float  # Unix time
    connections: int
    channels: int
    users: int
    received: float
    delivered: float
    dropped: float
    lag: float  # milliseconds that the loop was late, at worst
    cpu: float  # percent of one core
    handshakes: dict[str, int]  # by status


class Pulse:
    """Takes a sample every second and gives it to ``tell``, with one of each endpoint.

    The endpoint ``apart`` (the status page's own) is not counted. The cost does not depend on what goes through.
    """

    def __init__(self, hub: Hub, tell: Callable[[Sample], object]) -> None:
        self.samples: deque[Sample] = deque(maxlen=HISTORY)
        self.endpoints: list[dict[str, Any]] = []
        self.apart: ConnectionManager | None = None
        self.is_watched = False
        self._hub = hub
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._lag = 0.0
        self._next = self._last = 0.0
        self._cpu = 0.0
        self._before: dict[str, dict[str, int]] = {}  # each endpoint's counters
        self._handshakes: Mapping[int, int] = {}

    def start(self) -> None:
        """Begin, on the running loop."""
        self._last, self._cpu, self._lag = clock(), time.process_time(), 0.0
        self._next = self._last + SECOND
        self._handshakes = {}
        self._before = {manager.path: manager.stats for manager in self._managers()}
        self._arm()

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        wait = CLOSE_LOOK if self.is_watched else LOOK
        self._due = clock() + wait
        self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def _look(self) -> None:
        now = clock()
        self._lag = max(self._lag, now - self._due)
        if now >= self._next:
            # In step with the clock, unless the loop was held up for seconds.
            self._next = max(self._next + SECOND, now + SECOND / 2)
            sample = self._sample(now)
            self.samples.append(sample)
            self._tell(sample)
        self._arm()

    def _managers(self) -> list[ConnectionManager]:
        return [manager for manager in self._hub.managers if manager is not self.apart]

    def _sample(self, now: float) -> Sample:
        elapsed, self._last = now - self._last, now
        cpu, before = time.process_time(), self._before
        self._before, self.endpoints = {}, []
        for manager in self._managers():
            stats = self._before[manager.path] = manager.stats
            old = before.get(manager.path, stats)
            self.endpoints.append(
                {
                    "path": manager.path,
                    "connections": stats["connections"],
                    "channels": stats["channels"],
                    "users": stats["users"],
                    "received": _rate(stats["messages_received"] - old["messages_received"], elapsed),
                    "delivered": _rate(stats["deliveries"] - old["deliveries"], elapsed),
                    "dropped": _rate(sum(stats[name] - old[name] for name in DROPS), elapsed),
                }
            )
        total = {
            name: sum(endpoint[name] for endpoint in self.endpoints)
            for name in ("connections", "channels", "users", "received", "delivered", "dropped")
        }
        sample = Sample(
            time.time(),
            lag=round(max(self._lag, 0.0) * 1000, 1),
            cpu=round(max(cpu - self._cpu, 0.0) / elapsed * 100, 1),
            handshakes=self._new_handshakes(),
            **total,
        )
        self._lag, self._cpu = 0.0, cpu
        return sample

    def _new_handshakes(self) -> dict[str, int]:
        own = (None if self.apart is None else self.apart.path), 101
        counts: Counter[int] = Counter()
        for (path, status), count in self._hub.server.stats.get("handshakes", {}).items():
            if (path, status) != own:
                counts[status] += count
        before, self._handshakes = self._handshakes, counts
        return {str(status): new for status, count in counts.items() if (new := count - before.get(status, 0)) > 0}


def _rate(count: int, elapsed: float) -> float:
    return round(max(count, 0) / elapsed, 1)


def memory() -> int | None:
    """Returns the bytes of memory that this process has; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
