"""Questions to the backend: one POST each, whose answer decides."""

import asyncio
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import orjson

from ..answers import phrase
from ..errors import FastWSError
from .posting import Poster, Unanswered, encode, message_id
from .settings import HookSettings
from .shapes import Answer, sentence_of

__all__ = ["Asker", "Denied"]

logger = logging.getLogger("fastws.hooks")

A = TypeVar("A", bound=Answer)


class Denied(FastWSError):
    """The backend said no: a status from 400 to 499, and a sentence for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


class Asker:
    """Asks, so many at a time; an answer is yes only where it is one in every part."""

    def __init__(self, poster: Poster, settings: HookSettings) -> None:
        self._poster = poster
        self._timeout = settings.timeout
        self._max_pending = settings.max_pending
        self._concurrency = settings.concurrency
        self._turns: Turns | None = None

    async def ask(self, event: str, content: Mapping[str, Any], answer: type[A], headers: Mapping[str, str]) -> A:
        """Returns the backend's answer. Raises Denied for a no, Unanswered for all that is neither."""
        figures = self._poster.figures
        begin = time.perf_counter()
        figures.pending += 1
        result = "ok"
        try:
            return await self._ask(event, content, answer, headers)
        except Denied:
            result = "refused"
            raise
        except Unanswered as unanswered:
            result = unanswered.result
            took = (time.perf_counter() - begin) * 1000
            logger.warning(
                "hook %s got no answer after %.0f ms: %s",
                event,
                took,
                unanswered.reason,
                extra={"event": event, "result": result, "milliseconds": took},
            )
            raise
        except asyncio.CancelledError:
            result = ""  # whoever asked has gone
            raise
        finally:
            figures.pending -= 1
            if result:
                figures.count(event, result, time.perf_counter() - begin)

    async def _ask(self, event: str, content: Mapping[str, Any], answer: type[A], headers: Mapping[str, str]) -> A:
        turns = self._turns_here()
        if turns.waiting >= self._max_pending and not turns.are_free:
            raise Unanswered("error", f"{turns.waiting} asks wait already (max_pending)")
        try:
            async with asyncio.timeout(self._timeout), turns:
                question = encode({"event": event, **content})  # not before: it may be long
                status, body = await self._poster.post(event, question, id=message_id(), headers=headers)
        except TimeoutError:
            raise Unanswered("timeout", f"no answer within {self._timeout:g} s (timeout)") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise Unanswered("error", f"the question cannot be sent as JSON: {type(error).__name__}") from None
        return judge(status, body, answer)

    def _turns_here(self) -> "Turns":
        """Those of the running loop; a server may be started again on another."""
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns.loop is not loop:
            self._turns = Turns(self._concurrency, loop)
        return self._turns


def judge(status: int, body: bytes | None, answer: type[A]) -> A:
    """Returns what an answer says, which is yes; raises Denied or Unanswered for anything else."""
    if status == HTTPStatus.NO_CONTENT:
        return answer()
    if 400 <= status <= 499:
        raise Denied(status, sentence_of(body or b"") or phrase(status))
    if status != HTTPStatus.OK:
        raise Unanswered("error", f"status {status}")
    if body is None:
        raise Unanswered("error", "the answer is larger than 1 MiB")
    try:
        content = orjson.loads(body)
    except ValueError:
        raise Unanswered("error", "the answer is not JSON") from None
    if content == []:
        return answer()  # PHP's json_encode makes it of an empty array
    try:
        return msgspec.convert(content, answer)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Unanswered("error", f"the answer has the wrong form: {error}") from None


class Turns:
    """A semaphore that knows how many wait for it."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._semaphore = asyncio.Semaphore(number)
        self.waiting = 0

    @property
    def are_free(self) -> bool:
        """Whether nobody would have to wait."""
        return not self._semaphore.locked()

    async def __aenter__(self) -> None:
        self.waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1

    async def __aexit__(self, *exc_info: object) -> None:
        self._semaphore.release()
