"""Sequences of handler calls, each ``def`` or ``async def``, written once.

A sequence is a generator that yields what handlers return and gets it back, awaited where it must be. As long as
nothing is awaitable it runs through at once, on the caller's stack; from the first awaitable on it goes on in a task.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeAlias

from ._core import WebSocket, is_awaitable

__all__ = ["HANDLER_ERRORS", "MessageHandler", "Runner", "Steps", "complete"]

Steps: TypeAlias = Generator[Any, Any, Any]
MessageHandler: TypeAlias = Callable[[WebSocket, str | bytes], Any]

# What a handler may raise at its connection's cost. A CancelledError is its own as long as nobody cancels our task.
HANDLER_ERRORS = (Exception, asyncio.CancelledError)


async def _finish(steps: Steps, result: Any) -> Any:
    """The rest of a sequence. What is awaited and raises ends it."""
    try:
        while True:
            result = steps.send(await result if is_awaitable(result) else result)
    except StopIteration as done:
        return done.value


def complete(steps: Steps, finish: Callable[[Steps, Any], Any] = _finish) -> Any:
    """The result of a sequence; where it has to wait, what ``finish`` makes of the rest: an awaitable for it."""
    result = None
    try:
        while not is_awaitable(result):
            result = steps.send(result)
    except StopIteration as done:
        return done.value
    return finish(steps, result)


class Runner:
    """Runs sequences, and keeps the tasks that they need."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_finishing = False

    def run(self, steps: Steps) -> None:
        """Run a sequence as far as it goes without waiting; the rest goes on in a task."""
        rest = complete(steps, self._finish)
        if rest is not None:
            self.spawn(rest)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task of its own."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _finish(self, steps: Steps, awaitable: Awaitable[Any]) -> None:
        result: Any = awaitable
        try:
            while True:
                while is_awaitable(result):
                    try:
                        result = await result
                    except HANDLER_ERRORS as error:
                        if self.is_finishing:
                            raise
                        result = steps.throw(error)
                result = steps.send(result)
        except StopIteration:
            return

    async def finish(self, timeout: float) -> None:
        """Wait for all tasks, at most ``timeout`` seconds; cancel those that take longer."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=timeout)
            self.is_finishing = True
            try:
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late, timeout=1)
            finally:
                self.is_finishing = False
