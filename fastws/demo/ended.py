"""The sessions that logged out. A signed cookie cannot be taken back: a copy of it is known by this alone."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["LIFETIME_SECONDS", "Ended"]

LIFETIME_SECONDS = 14 * 24 * 3600  # from the login; nothing prolongs a session
MAX_REMEMBERED_SESSIONS = 100_000


class Ended:
    """Knows of a session whether it is over: logged out, or too old.

    A session has an `id`, and a `since`, the time of its login. It is remembered for as long as its cookie would do, by
    that time and not by the signature's, which a request that was under way at the log-out may renew.

    With more than MAX_REMEMBERED_SESSIONS of them, those of the earliest login are forgotten, and whatever logged in no
    later is over from then on: so nobody comes back by a cookie that ended, and some have to log in once more.
    Connections that are open stay open.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._by_login: list[tuple[float, str]] = []  # a heap: the earliest first
        self._last_over = 0.0  # the time of a login; whoever logged in then, or before, is over

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, session: Mapping[str, Any]) -> None:
        """End a session; for one that is over already nothing changes."""
        if self.has(session):
            return
        self._ids.add(session["id"])
        heapq.heappush(self._by_login, (session["since"], session["id"]))
        while len(self._ids) > MAX_REMEMBERED_SESSIONS or self._by_login[0][0] <= time.time() - LIFETIME_SECONDS:
            self._last_over, session_id = heapq.heappop(self._by_login)
            self._ids.discard(session_id)

    def has(self, session: Mapping[str, Any]) -> bool:
        """Whether a session is over; one that does not say since when it is there is."""
        since = session.get("since", 0)
        return since <= max(self._last_over, time.time() - LIFETIME_SECONDS) or session.get("id") in self._ids
