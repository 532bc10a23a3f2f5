"""The last refusals, for whoever asks why a client did not get in."""

import logging
from collections import deque
from typing import Any

__all__ = ["MOST_KEPT", "Refusals"]

MOST_KEPT = 1000


class Refusals(logging.Handler):
    """Keeps the last refusals that the logger ``fastws.server`` told of, from `install` to `remove`."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        super().__init__()
        self._kept: deque[dict[str, Any]] = deque(maxlen=most)

    async def __aenter__(self) -> "Refusals":
        self.install()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.remove()

    def install(self) -> None:
        """Begin to listen."""
        logging.getLogger("fastws.server").addHandler(self)

    def remove(self) -> None:
        """Listen no more."""
        logging.getLogger("fastws.server").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, if it is of a refusal: they alone have a request's id and a status."""
        said = vars(record)
        if "request_id" not in said or "status" not in said:
            return
        peer = said.get("remote_address")
        self._kept.append(
            {
                "time": record.created,
                "request_id": said["request_id"],
                "status": said["status"],
                "message": record.args[2] if isinstance(record.args, tuple) and len(record.args) > 2 else "",
                "remote_address": None if peer is None else peer[0],
                "path": said.get("path"),
                "origin": said.get("origin"),
                "user_agent": said.get("user_agent"),
            }
        )

    def last(self, limit: int = MOST_KEPT) -> list[dict[str, Any]]:
        """Returns the last ones, the latest first."""
        return [dict(kept) for kept, _ in zip(reversed(self._kept), range(limit), strict=False)]
