"""Sessions that have logged out. A signed cookie cannot be revoked: only this list tells that a copy is void."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["LIFETIME_SECONDS", "Ended"]

LIFETIME_SECONDS = 14 * 24 * 3600  # from the login; a session is never extended
MAX_REMEMBERED_SESSIONS = 100_000


class Ended:
    """Knows whether a session is over: logged out, or too old.

    A session has an `id`, and the time of its login as `since`. A logout is remembered for as long as the cookie could
    be valid, counted from the login rather than from the signature, which a request under way at the logout may renew.

    If there are more than MAX_REMEMBERED_SESSIONS, those with the earliest logins are forgotten, and all sessions with
    a login no later than theirs are over. So a cookie that has ended never works again, but some users have to log in
    again. Open connections stay open.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._by_login: list[tuple[float, str]] = []  # a heap, with the earliest first
        self._last_over = 0.0  # a login time: all sessions up to it are over

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, session: Mapping[str, Any]) -> None:
        """End a session; if it is already over, nothing changes."""
        if self.has(session):
            return
        self._ids.add(session["id"])
        heapq.heappush(self._by_login, (session["since"], session["id"]))
        while len(self._ids) > MAX_REMEMBERED_SESSIONS or self._by_login[0][0] <= time.time() - LIFETIME_SECONDS:
            self._last_over, session_id = heapq.heappop(self._by_login)
            self._ids.discard(session_id)

    def has(self, session: Mapping[str, Any]) -> bool:
        """Returns whether a session is over; one without `since` is."""
        since = session.get("since", 0)
        return since <= max(self._last_over, time.time() - LIFETIME_SECONDS) or session.get("id") in self._ids
