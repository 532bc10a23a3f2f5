"""Turns: many connections with requests share the loop with everything else on it."""

import asyncio
import time
from typing import Protocol

__all__ = ["Turns"]

TURN_SECONDS = 0.002  # of requests, before everything else has its turn
TASK_SECONDS = 0.0001  # estimate for the first step of an application's task


class Parses(Protocol):
    """A connection of HTTP."""

    loop: asyncio.AbstractEventLoop

    def parse(self) -> None:
        """Parse the unparsed input."""


class Turns:
    """Limits how long requests run at a time, however many come at once; the others wait, in order."""

    def __init__(self) -> None:
        self._waiting: dict[Parses, None] = {}
        self._began: float | None = None  # the current turn

    def take(self, connection: Parses) -> None:
        """Let a connection parse its input, now or in a later turn."""
        if self._began is None:
            self._begin(connection.loop)
        elif self._waiting or self._is_over:
            self._waiting[connection] = None
            return
        connection.parse()

    def charge(self) -> None:
        """A task of the application was created, which will run in the next turn."""
        if self._began is not None:
            self._began -= TASK_SECONDS

    @property
    def _is_over(self) -> bool:
        return self._began is not None and time.perf_counter() - self._began > TURN_SECONDS

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._began = time.perf_counter()  # the loop's own clock stands still during a turn
        loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Everything else has had its turn."""
        self._began = None
        while self._waiting and not self._is_over:
            if self._began is None:
                self._begin(loop)
            connection = next(iter(self._waiting))
            del self._waiting[connection]
            connection.parse()
