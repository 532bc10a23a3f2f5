"""Sessions that have logged out. A signed cookie cannot be revoked: only this list tells that a copy is void."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from typing import Any

from fastws.cluster.shared import SharedDict

__all__ = ["LIFETIME_SECONDS", "Ended"]

LIFETIME_SECONDS = 14 * 24 * 3600  # from the login; a session is never extended
MAX_REMEMBERED_SESSIONS = 100_000
ALL_UP_TO = ""  # the key of a login time: all sessions up to it are over


class Ended:
    """Knows whether a session is over: logged out, on any node, or too old.

    A session has an `id`, and the time of its login as `since`. A logout is remembered for as long as the cookie could
    be valid, counted from the login rather than from the signature, which a request under way at the logout may renew.

    If there are more than MAX_REMEMBERED_SESSIONS, those with the earliest logins are forgotten, and all sessions with
    a login no later than theirs are over. So a cookie that has ended never works again, but some users have to log in
    again. Open connections stay open.
    """

    def __init__(self, shared: SharedDict) -> None:
        self._logins = shared  # of the sessions that have ended, by id
        self._by_login: list[tuple[float, str]] = []  # a heap, with the earliest first
        shared.on_change(self._changed)

    def __len__(self) -> int:
        return len(self._logins) - (ALL_UP_TO in self._logins)

    def add(self, session: Mapping[str, Any]) -> None:
        """End a session; if it is already over, nothing changes."""
        if self.has(session):
            return
        self._logins[session["id"]] = session["since"]
        while len(self) > MAX_REMEMBERED_SESSIONS or self._by_login[0][0] <= time.time() - LIFETIME_SECONDS:
            since, session_id = self._by_login[0]
            self._logins[ALL_UP_TO] = max(since, self._logins.get(ALL_UP_TO, 0))
            del self._logins[session_id]

    def has(self, session: Mapping[str, Any]) -> bool:
        """Returns whether a session is over; one without `since` is."""
        since = session.get("since", 0)
        over = max(self._logins.get(ALL_UP_TO, 0), time.time() - LIFETIME_SECONDS)
        return since <= over or session.get("id") in self._logins

    def _changed(self, session_id: str, since: Any, is_deletion: bool) -> None:
        """A session has ended or was forgotten, here or on another node."""
        if session_id != ALL_UP_TO and not is_deletion:
            heapq.heappush(self._by_login, (since, session_id))
        while self._by_login and self._by_login[0][1] not in self._logins:
            heapq.heappop(self._by_login)
