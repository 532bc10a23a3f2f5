"""What was answered under idempotency keys, so that the same request again does nothing twice."""

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Repeats"]

KEPT_FOR = 300.0  # seconds
MOST_KEPT = 100_000  # past it the oldest go before their time


class Repeats:
    """Counts by API key, channel and idempotency key, kept for 5 minutes."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._answers: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def once(self, owner: str, channel: str, key: str, do: Callable[[], int]) -> int:
        """Returns what ``do`` returns, or returned the last time. Of two owners the same key is two keys."""
        now = time.monotonic()
        while self._answers:
            name, (at, _) = next(iter(self._answers.items()))
            if at > now - KEPT_FOR and len(self._answers) < self._most:
                break
            del self._answers[name]
        known = self._answers.get((owner, channel, key))
        if known is not None:
            return known[1]
        count = do()
        self._answers[owner, channel, key] = now, count
        return count
