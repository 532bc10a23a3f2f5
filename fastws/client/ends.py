"""What a client does after each close code: the table of docs/protocol.md, and how long it waits."""

import random

__all__ = ["BackOff", "is_final", "is_soon"]

OVER = 4001  # the token or the session is
SOON = {1000, 1001, 1012}
FINAL = {1002, 1003, 1007, 1008, 1009}
PASSING = {408, 429}  # statuses that may pass, as may 500 and above


def is_soon(code: int) -> bool:
    """Whether the server is expected back at once."""
    return code in SOON


def is_final(code: int) -> bool:
    """Whether a client stays away after a close code."""
    return code in FINAL or (4400 <= code < 4600 and is_final_status(code - 4000))


def is_final_status(status: int) -> bool:
    """Whether a client stays away after a refusal with a status of HTTP."""
    return status < 500 and status not in PASSING


class BackOff:
    """How long to wait before each attempt: evenly from zero to what doubles each time."""

    def __init__(self, least: float, most: float) -> None:
        self.least = least
        self.most = most
        self.tries = 0

    def next(self) -> float:
        """Returns seconds."""
        limit = min(self.most, self.least * 2 ** min(self.tries, 64))
        self.tries += 1
        return random.uniform(0, limit)
