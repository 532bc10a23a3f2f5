"""What a backend is told: in batches, in order, one batch at a time, and tried until it arrives."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .posting import Poster, Unanswered, encode, message_id

__all__ = ["Outbox"]

Waiting: TypeAlias = tuple[float, bytes]  # since when (time.monotonic), and the event as JSON

logger = logging.getLogger("fastws.hooks")

BATCH = 100  # events
LINGER = 0.1  # seconds that a batch waits for more
MOST = 100_000  # events that wait
MOST_BYTES = 64 << 20  # of them all
FIRST_DELAY, LAST_DELAY = 0.1, 20.0  # seconds between two tries
AT_STOP = 0.5  # the same, while the server stops
PATIENCE = 30.0  # seconds for one try; a backend may have much to do for a hundred events


class Outbox:
    """Delivers what it is told at least once and in order, as long as the backend comes back within ``retry_for``.

    Starts by itself with the first event, on the running loop. ``body`` makes the request's body of a batch of events,
    each of which is JSON.
    """

    def __init__(self, poster: Poster, retry_for: float, body: Callable[[Sequence[bytes]], bytes]) -> None:
        self._poster = poster
        self._retry_for = retry_for
        self._body = body
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0  # of those that wait
        self._reported = 0  # of the figure `dropped`
        self._delay = 0.0
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()  # there is something to deliver
        self._rush = asyncio.Event()  # and not to be waited for
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many events wait, those under way not counted."""
        return len(self._waiting)

    def start(self) -> bool:
        """Deliver from now on. Needs a running loop. Returns whether it has just begun."""
        loop = asyncio.get_running_loop()
        if self._task is not None and not self._task.done() and self._task.get_loop() is loop:
            return False
        self._stopping, self._news, self._rush = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._task = loop.create_task(self._work())
        return True

    def add(self, type: str, event: Mapping[str, Any]) -> None:
        """Have an event delivered, once it is started. Never waits. ``type`` is for the log."""
        try:
            encoded = encode(event)
        except (ValueError, TypeError, RecursionError) as error:
            logger.error("an event %r cannot be sent as JSON: %s", type, error.__class__.__name__)
            self._poster.figures.dropped += 1
            return
        self._waiting.append((time.monotonic(), encoded))
        self._bytes += len(encoded)
        while len(self._waiting) > MOST or self._bytes > MOST_BYTES:
            self._drop([self._next()])
        self._news.set()
        if len(self._waiting) >= BATCH:
            self._rush.set()

    def _next(self) -> Waiting:
        """The oldest that waits, which no longer does."""
        waiting = self._waiting.popleft()
        self._bytes -= len(waiting[1])
        return waiting

    async def stop(self, seconds: float) -> None:
        """Deliver the rest within so many seconds, and stop. An event that comes later starts it again."""
        task = self._task
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return
        for event in (self._stopping, self._news, self._rush):
            event.set()
        await asyncio.wait((task,), timeout=seconds)
        if self._task is not task:
            return  # there was more to tell, when all was told
        self._task = None
        task.cancel()
        await asyncio.wait((task,))
        self._drop([self._next() for _ in range(len(self._waiting))])
        self._report()

    # -- the task

    async def _work(self) -> None:
        try:
            await self._deliver_all()
        except asyncio.CancelledError:  # the loop ends
            await self._poster.close()
            raise

    async def _deliver_all(self) -> None:
        while True:
            if not self._waiting:
                if self._stopping.is_set():
                    return
                self._news.clear()
                await self._news.wait()
                continue  # it may be that the server stops
            await _wait_for(self._rush, LINGER)
            batch = [self._next() for _ in range(min(BATCH, len(self._waiting)))]
            if len(self._waiting) < BATCH and not self._stopping.is_set():
                self._rush.clear()
            is_delivered = False
            try:
                is_delivered = await self._deliver(batch)
            finally:
                if not is_delivered:
                    self._drop(batch)
                self._report()

    async def _deliver(self, batch: list[Waiting]) -> bool:
        """Try until the backend has it, or the youngest of its events is too old; whether it was delivered."""
        body = self._body([event for _, event in batch])
        message = message_id()  # the same for each try, by which a backend knows what it has seen
        while not await self._try(body, message, len(batch)):
            self._drop_old()
            self._report()
            if batch[-1][0] < time.monotonic() - self._retry_for:
                return False
            self._delay = min(self._delay * 2 or FIRST_DELAY, LAST_DELAY)
            if self._stopping.is_set():
                await asyncio.sleep(min(self._delay, AT_STOP))
            else:
                await _wait_for(self._stopping, self._delay)
        self._delay = 0.0
        return True

    async def _try(self, body: bytes, id: str, number: int) -> bool:
        begin = time.perf_counter()
        result, reason = "ok", ""
        try:
            async with asyncio.timeout(PATIENCE):
                status, _ = await self._poster.post("events", body, id=id)
            if not 200 <= status <= 299:
                result, reason = "error", f"status {status}"
        except TimeoutError:
            result, reason = "timeout", f"no answer within {PATIENCE:g} s"
        except Unanswered as unanswered:
            result, reason = unanswered.result, unanswered.reason
        took = time.perf_counter() - begin
        self._poster.figures.count("events", result, took)
        if reason:
            logger.warning(
                "hook events did not take %d events after %.0f ms: %s",
                number,
                took * 1000,
                reason,
                extra={"event": "events", "result": result, "milliseconds": took * 1000},
            )
        return not reason

    # -- what is lost

    def _drop_old(self) -> None:
        """What has waited for as long as it would have been tried is not tried any more."""
        oldest = time.monotonic() - self._retry_for
        while self._waiting and self._waiting[0][0] < oldest:
            self._drop([self._next()])

    def _drop(self, events: list[Waiting]) -> None:
        self._poster.figures.dropped += len(events)

    def _report(self) -> None:
        """Log what was dropped since the last time."""
        lost = self._poster.figures.dropped - self._reported
        if lost:
            self._reported += lost
            logger.error("%d events were dropped: the backend never took them", lost, extra={"dropped": lost})


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
