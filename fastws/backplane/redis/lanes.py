"""What has to happen in order, and once each: one call at a time, of all that has gathered meanwhile."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..base import BackplaneError

__all__ = ["Item", "Lane", "fail"]

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Item(Generic[T]):
    """Something to do. Only items of one ``group`` are in one call."""

    value: T
    size: int
    deadline: float
    group: Hashable = None
    done: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Lane(Generic[T]):
    """A queue whose calls are numbered: a call that is asked again has its number, and the store knows it by that.

    ``carry_out(items, number, deadline)`` returns a result for each item, or raises: TimeoutError at the deadline,
    BackplaneError for good.
    """

    def __init__(
        self,
        carry_out: Callable[[list[Item[T]], int, float], Awaitable[list[Any]]],
        most: int,
        most_bytes: int,
    ) -> None:
        self.finished = 0  # number of the last call that was answered
        self._carry_out, self._most, self._most_bytes = carry_out, most, most_bytes
        self._number = 0
        self._queue: deque[Item[T]] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, item: Item[T]) -> None:
        """Have something done; the first call is at the end of this turn of the loop."""
        self._queue.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def idle(self) -> None:
        """Wait until all is done."""
        while self._task is not None:
            await asyncio.wait({self._task})

    def close(self, error: BackplaneError) -> None:
        """Do nothing more."""
        if self._task is not None:
            self._task.cancel()
        for item in self._queue:
            fail(item, error)
        self._queue.clear()

    async def _run(self) -> None:
        batch: list[Item[T]] = []
        try:
            while self._queue:
                batch = self._take()
                self._number += 1
                await self._call(batch)
        finally:
            self._task = None
            for item in batch:
                fail(item, BackplaneError("the backplane was stopped"))

    def _take(self) -> list[Item[T]]:
        first = self._queue.popleft()
        batch, size = [first], first.size
        while self._queue and len(batch) < self._most:
            item = self._queue[0]
            size += item.size
            if size > self._most_bytes or item.group != first.group:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _call(self, batch: list[Item[T]]) -> None:
        while waiting := [item for item in batch if not item.done.done()]:
            deadline = min(item.deadline for item in waiting)
            try:
                results = await self._carry_out(batch, self._number, deadline)
            except TimeoutError:
                for item in waiting:
                    if item.deadline <= deadline:
                        fail(item, BackplaneError("Redis has not answered in time"))
                continue
            except BackplaneError as error:
                for item in waiting:
                    fail(item, error)
                return
            self.finished = self._number
            for item, result in zip(batch, results, strict=True):
                if not item.done.done():
                    item.done.set_result(result)
            return


def fail(item: Item[Any], error: BackplaneError) -> None:
    """Have an item end with an error."""
    if not item.done.done():
        item.done.set_exception(error)
        item.done.exception()  # whoever does not wait for it need not hear of it
