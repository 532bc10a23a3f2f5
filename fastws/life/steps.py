"""Sequences of handler calls, written once for handlers that are ``def`` or ``async def``.

A sequence is a generator that yields what handlers return and gets back the result, awaited if necessary. It runs at
once, on the caller's stack, until the first awaitable; from then on it continues in a task.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from .._core import WebSocket, is_awaitable

__all__ = ["HANDLER_ERRORS", "MessageHandler", "Runner", "Steps", "as_exception", "call", "complete"]

Steps: TypeAlias = Generator[Any, Any, Any]
MessageHandler: TypeAlias = Callable[[WebSocket, str | bytes], Any]

# What a handler may raise; only its connection is closed. A CancelledError is its own unless our task is cancelled.
HANDLER_ERRORS = (Exception, asyncio.CancelledError)

# These end the program, whoever raises them.
EXIT_ERRORS = (KeyboardInterrupt, SystemExit)


def as_exception(error: BaseException) -> BaseException:
    """Returns an error as one of `HANDLER_ERRORS`: others, such as GeneratorExit, have a meaning for sequences."""
    if isinstance(error, HANDLER_ERRORS):
        return error
    wrapped = RuntimeError(f"a handler raised {type(error).__name__}, which is not an Exception")
    wrapped.__cause__ = error
    return wrapped


def call(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a handler. Returns its result; raises only `HANDLER_ERRORS` and `EXIT_ERRORS`."""
    try:
        return method(*arguments)
    except (*HANDLER_ERRORS, *EXIT_ERRORS):
        raise
    except BaseException as error:
        raise as_exception(error) from error


async def drive(steps: Steps, awaitable: Any) -> Any:
    """Run a sequence that has to wait. Returns its result. Errors of what it awaits are raised inside the sequence."""
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
    """Returns whether an error came from an awaited handler, rather than from the end of the task or the program."""
    if isinstance(error, Exception):
        return True
    if task is None or isinstance(error, EXIT_ERRORS):
        return False
    if isinstance(error, asyncio.CancelledError):
        return not task.cancelling()
    return asyncio.current_task() is task  # otherwise the coroutine is being closed, unfinished


def complete(steps: Steps) -> Any:
    """Run a sequence. Returns its result, or an awaitable of it if the sequence has to wait."""
    result = None
    try:
        while not is_awaitable(result):
            result = steps.send(result)
    except StopIteration as done:
        return done.value
    return drive(steps, result)


class Runner:
    """Runs sequences, and tracks their tasks."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_stopping = False  # the server is stopping: presence is no longer announced

    def run(self, steps: Steps) -> "asyncio.Task[None] | None":
        """Run a sequence as far as it goes without waiting. Returns the task that runs the rest, if any."""
        rest = complete(steps)
        if not is_awaitable(rest):
            return None
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(rest)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def finish(self, timeout: float) -> None:
        """Wait for all tasks, at most ``timeout`` seconds, then cancel the rest."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)
