"""Whoever has said nothing for long is asked whether it is there."""

import asyncio
from collections.abc import Callable, Sequence

from .._core import WebSocket

__all__ = ["PONG_TIMEOUT", "Silence"]

PONG_TIMEOUT = 30.0  # seconds that a client has to answer, as clients give the server


class Silence:
    """Knows since when each connection has been silent.

    After ``seconds``, ``ask`` is called with all that are due, and ``give_up`` with each that does not answer.
    """

    def __init__(
        self,
        seconds: float,
        ask: Callable[[Sequence[WebSocket]], None],
        give_up: Callable[[WebSocket], None],
    ) -> None:
        self._seconds = seconds
        self._ask = ask
        self._give_up = give_up
        self._heard: dict[WebSocket, float] = {}  # when, on the loop's clock; the longest silent first
        self._asked: dict[WebSocket, float] = {}  # the same
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, ws: WebSocket) -> None:
        """A connection has said something, or is new."""
        loop = asyncio.get_running_loop()
        self._asked.pop(ws, None)
        self._heard.pop(ws, None)
        self._heard[ws] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def forget(self, ws: WebSocket) -> None:
        """A connection is over."""
        self._asked.pop(ws, None)
        self._heard.pop(ws, None)
        if self._timer is not None and not (self._asked or self._heard):
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for ws in _until(self._asked, now - PONG_TIMEOUT):
            del self._asked[ws]
            self._give_up(ws)
        due = _until(self._heard, now - self._seconds)
        for ws in due:
            del self._heard[ws]
            self._asked[ws] = now
        if due:
            self._ask(due)
        times = [next(iter(self._heard.values())) + self._seconds] if self._heard else []
        times += [next(iter(self._asked.values())) + PONG_TIMEOUT] if self._asked else []
        if times and self._timer is None:
            self._timer = loop.call_at(min(times), self._look)


def _until(times: dict[WebSocket, float], latest: float) -> list[WebSocket]:
    """Those at the front whose time is not after the latest."""
    found = []
    for ws, at in times.items():
        if at > latest:
            break
        found.append(ws)
    return found
