"""Pauses between tries."""

import asyncio
import random

__all__ = ["Backoff"]

FIRST_DELAY, LAST_DELAY = 0.05, 2.0  # seconds between tries while the store does not answer


class Backoff:
    """Waits between tries while the store does not answer: each time longer, and never all nodes at once."""

    def __init__(self) -> None:
        self._delay = FIRST_DELAY

    def reset(self) -> None:
        """The store has answered."""
        self._delay = FIRST_DELAY

    async def pause(self) -> None:
        """Wait until the next try."""
        await asyncio.sleep(self._delay * random.uniform(0.5, 1))
        self._delay = min(self._delay * 2, LAST_DELAY)
