"""Sequences of handler calls, each ``def`` or ``async def``, written once.

A sequence is a generator that yields what handlers return and gets it back, awaited where it must be. As long as
nothing is awaitable it runs through at once, on the caller's stack; from the first awaitable on it goes on in a task.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from .._core import WebSocket, is_awaitable

__all__ = ["HANDLER_ERRORS", "MessageHandler", "Runner", "Steps", "as_exception", "call", "complete"]

Steps: TypeAlias = Generator[Any, Any, Any]
MessageHandler: TypeAlias = Callable[[WebSocket, str | bytes], Any]

# What a handler may raise at its connection's cost. A CancelledError is its own as long as nobody cancels our task.
HANDLER_ERRORS = (Exception, asyncio.CancelledError)

# What ends the program, whoever raises it.
EXIT_ERRORS = (KeyboardInterrupt, SystemExit)


def as_exception(error: BaseException) -> BaseException:
    """What a handler raised, as one of `HANDLER_ERRORS`: any other (GeneratorExit, say) would mean something to us."""
    if isinstance(error, HANDLER_ERRORS):
        return error
    wrapped = RuntimeError(f"a handler raised {type(error).__name__}, which is not an Exception")
    wrapped.__cause__ = error
    return wrapped


def call(method: Callable[..., Any], *arguments: Any) -> Any:
    """What a handler returns. It raises nothing but `HANDLER_ERRORS`, and what ends the program."""
    try:
        return method(*arguments)
    except (*HANDLER_ERRORS, *EXIT_ERRORS):
        raise
    except BaseException as error:
        raise as_exception(error) from error


async def drive(steps: Steps, awaitable: Any) -> Any:
    """Returns the result of a sequence that has to wait. What is awaited and raises, raises in the sequence."""
    task = asyncio.current_task()
    result = awaitable
    try:
        while True:
            try:
                while is_awaitable(result):
                    result = await result
            except BaseException as error:
                if not is_from_handler(error, task):
                    raise
                result = steps.throw(as_exception(error))
            else:
                result = steps.send(result)
    except StopIteration as done:
        return done.value
    finally:
        steps.close()


def is_from_handler(error: BaseException, task: "asyncio.Task[Any] | None") -> bool:
    """Whether a handler that a task awaited raised it, rather than whoever ends the task or the program."""
    if isinstance(error, Exception):
        return True
    if task is None or isinstance(error, EXIT_ERRORS):
        return False
    if isinstance(error, asyncio.CancelledError):
        return not task.cancelling()
    return asyncio.current_task() is task  # else the coroutine is being closed, unfinished


def complete(steps: Steps) -> Any:
    """The result of a sequence; an awaitable for it where it has to wait."""
    result = None
    try:
        while not is_awaitable(result):
            result = steps.send(result)
    except StopIteration as done:
        return done.value
    return drive(steps, result)


class Runner:
    """Runs sequences, and keeps the tasks that they need."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_stopping = False  # the server is: everybody goes, and nobody need be told of each

    def run(self, steps: Steps) -> "asyncio.Task[None] | None":
        """Run a sequence as far as it goes without waiting; the rest goes on in a task, which it returns."""
        rest = complete(steps)
        if not is_awaitable(rest):
            return None
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(rest)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def finish(self, timeout: float) -> None:
        """Wait for all tasks, at most ``timeout`` seconds; cancel those that take longer."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)
