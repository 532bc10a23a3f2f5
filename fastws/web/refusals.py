"""The last refusals, for whoever asks why a client did not get in."""

import logging
from collections import deque
from typing import Any, Self

__all__ = ["MOST_KEPT", "Refusals"]

MOST_KEPT = 1000


class Refusals(logging.Handler):
    """Keeps the last refusals that the logger ``fastws.server`` told of, from `install` to `remove`."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        super().__init__()
        self.total = 0  # since the start, kept or not
        self._kept: deque[dict[str, Any]] = deque(maxlen=most)

    async def __aenter__(self) -> Self:
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
        self._pass_on(record)
        said = vars(record)
        if "request_id" not in said or "status" not in said:
            return
        self.total += 1
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

    def _pass_on(self, record: logging.LogRecord) -> None:
        """Where nobody else handles logs, do what `logging` would have done without us: warnings go to stderr."""
        logger: logging.Logger | None = logging.getLogger("fastws.server")
        ours = [handler for handler in logger.handlers if isinstance(handler, Refusals)] if logger else []
        while logger is not None:
            if any(not isinstance(handler, Refusals) for handler in logger.handlers):
                return
            logger = logger.parent if logger.propagate else None
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and ours[:1] == [self]:
            last.handle(record)
