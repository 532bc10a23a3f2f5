"""Events for the backend of hooks, numbered; and signs of life."""

import asyncio
import itertools
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..supervised import worker_number
from .outbox import Outbox
from .posting import Poster, encode
from .settings import HookSettings

__all__ = ["Teller"]


class Teller:
    """Tells the backend what happens, by an `Outbox`, and first of all that this process has started.

    ``counts`` gives the numbers of users and connections for the heartbeat.
    """

    def __init__(self, poster: Poster, settings: HookSettings, counts: Callable[[], tuple[int, int]]) -> None:
        self.node = settings.node or socket.gethostname()
        if (number := worker_number()) is not None:
            self.node += f"-{number}"  # each forgets what earlier ones of its name had
        #: Of this process. A later one sorts after an earlier one.
        self.boot = f"{time.time_ns() // 1_000_000}-{secrets.token_hex(4)}"
        self._outbox = Outbox(poster, settings.retry_for, self._body)
        self._counts = counts
        self._heartbeat = settings.heartbeat
        self._numbers = itertools.count(1)
        self._has_started = False
        self._beat: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many events wait, those under way not counted."""
        return self._outbox.waiting

    def start(self) -> None:
        """Deliver from now on, first that this process has started. Needs a running loop."""
        if not self._outbox.start():
            return
        if not self._has_started:
            self._has_started = True
            self._add({"type": "started", "boot": self.boot})
        self._schedule_heartbeat()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Have an event delivered. Never waits."""
        self.start()
        self._add(event)

    async def stop(self, seconds: float) -> None:
        """Deliver the rest within so many seconds, and stop. An event that comes later starts it again."""
        if self._beat is not None:
            self._beat.cancel()
        await self._outbox.stop(seconds)

    def _add(self, event: Mapping[str, Any]) -> None:
        stamped = {"seq": next(self._numbers), "time": round(time.time(), 3), **event}
        self._outbox.add(event["type"], stamped)

    def _body(self, events: Sequence[bytes]) -> bytes:
        content = {
            "event": "events",
            "node": self.node,
            "boot": self.boot,
            "events": [msgspec.Raw(event) for event in events],
        }
        return encode(content)

    def _schedule_heartbeat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._heartbeat:
            self._beat = asyncio.get_running_loop().call_later(self._heartbeat, self._send_heartbeat)

    def _send_heartbeat(self) -> None:
        users, connections = self._counts()
        self._add({"type": "heartbeat", "users": users, "connections": connections})
        self._schedule_heartbeat()
