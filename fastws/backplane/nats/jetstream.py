"""What is asked of JetStream: storing and reading."""

import asyncio
import base64
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from ...errors import ConfigurationError
from ..base import BackplaneError
from .link import Answer, Link
from .names import header
from .wire import headed, plain

__all__ = ["Ack", "JetStream", "Message", "Rejected", "Stored", "Stream"]

PAGE = 500  # messages or subjects of one question
PAGE_BYTES = 1 << 22
OVERHEAD = 200  # bytes of headers beside ours, at most
NO_JETSTREAM = (503, 10039, 10076)
OTHER_CONFIG, WRONG_LAST = 10058, 10071
LONGEST_PAUSE = 0.5  # seconds until a stream without a leader is tried again


class Rejected(BackplaneError):
    """The server does not do it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"NATS refuses: {text} ({code})")
        self.code = code


class Message(NamedTuple):
    """What is to be stored."""

    subject: str
    headers: str
    payload: bytes = b""


class Ack(NamedTuple):
    """Where a message was stored, now or before."""

    sequence: int
    is_duplicate: bool


class Stored(NamedTuple):
    """What is stored."""

    sequence: int
    headers: bytes
    payload: bytes

    @property
    def subject(self) -> str:
        """Where it was sent to."""
        return header(self.headers, b"Nats-Subject").decode()

    @property
    def time(self) -> float:
        """When it was stored, by the server's clock."""
        return _seconds(header(self.headers, b"Nats-Time-Stamp").decode())


class Put:
    """What is being stored; those of one node and stream are stored in their order."""

    __slots__ = ("attempt", "deadline", "encode", "future", "number", "size")

    def __init__(self, number: int, encode: Callable[[str], bytes], size: int, deadline: float) -> None:
        self.number, self.encode, self.size, self.deadline = number, encode, size, deadline
        self.attempt = 0
        self.future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()


class Stream:
    """A stream, made when it is needed first. ``config`` is called with the sequence that it begins after."""

    def __init__(self, name: str, config: Callable[[int], dict[str, Any]]) -> None:
        self.name, self.config = name, config
        self.is_open = False
        self.opening: asyncio.Task[None] | None = None
        self.sent: dict[int, Put] = {}  # and not answered
        self.waiting: list[Put] = []
        self.waiting_bytes = 0
        self.pause = 0.0


class JetStream:
    """JetStream over a link."""

    def __init__(self) -> None:
        self.link: Link
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ahead = 0.0  # seconds of the server's clock before ours

    async def check(self) -> None:
        """Raises ConfigurationError where the server has no JetStream for us."""
        try:
            await self.api("INFO", {})
        except Rejected as error:
            if error.code not in NO_JETSTREAM:
                raise
            raise ConfigurationError(f"NATS has no JetStream for this user: {error}") from None

    async def stop(self) -> None:
        """End what is still being tried."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something that ends at the latest when the backplane stops; whoever waits for it is told of errors."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # has been told

    @property
    def now(self) -> float:
        """The time by the server's clock, as it was when last heard."""
        return time.time() + self._ahead

    async def api(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Returns what the server answers; raises Rejected if it is an error."""
        body = orjson.dumps(request) if request else b""
        answer = await self.link.ask(lambda reply: plain(f"$JS.API.{operation}", reply, body), len(body))
        if answer.status:
            raise Rejected(answer.status, "JetStream is not enabled")
        result = _result(answer)
        if "ts" in result:
            self._ahead = _seconds(result["ts"]) - time.time()
        return result

    # -- storing

    def store(self, stream: Stream, message: Message) -> asyncio.Future[Ack]:
        """Store a message; the future raises Rejected where a condition in its headers is not met."""
        subject, headers, payload = message
        size = len(payload) + len(headers) + OVERHEAD
        deadline = asyncio.get_running_loop().time() + self.link.timeout
        put = Put(next(self._numbers), lambda reply: headed(subject, reply, headers, payload), size, deadline)
        if stream.is_open:
            self._send(stream, put)
        elif self.link.is_full(stream.waiting_bytes + size):
            put.future.set_exception(self.link.full())
        else:
            self._wait(stream, put)
        return put.future

    def _send(self, stream: Stream, put: Put) -> None:
        put.attempt += 1
        attempt = put.attempt
        stream.sent[put.number] = put
        asked = self.link.ask(put.encode, put.size)
        asked.add_done_callback(lambda asked: self._on_answer(stream, put, attempt, asked))

    def _on_answer(self, stream: Stream, put: Put, attempt: int, asked: asyncio.Future[Answer]) -> None:
        is_late = asyncio.get_running_loop().time() >= put.deadline
        error = asked.exception()
        has_failed = error is not None or asked.result().status
        if has_failed and attempt != put.attempt and not is_late:
            return  # it was sent again
        stream.sent.pop(put.number, None)
        if put.future.done():
            return
        if error is not None:
            put.future.set_exception(error)
        elif not has_failed:
            stream.pause = 0.0
            try:
                result = _result(asked.result())
                put.future.set_result(Ack(result["seq"], "duplicate" in result))
            except Rejected as rejected:
                put.future.set_exception(rejected)
        elif is_late:
            put.future.set_exception(BackplaneError(f"the stream {stream.name} of NATS is not available"))
        else:
            stream.is_open = False
            self._wait(stream, put)

    def _wait(self, stream: Stream, put: Put) -> None:
        stream.waiting.append(put)
        stream.waiting_bytes += put.size
        self._open(stream)

    def _open(self, stream: Stream) -> asyncio.Task[None]:
        if stream.opening is None:
            stream.opening = self.spawn(self._make(stream))
        return stream.opening

    async def _make(self, stream: Stream) -> None:
        """Make a stream, if nobody has; then store what waits for it."""
        error: BackplaneError | None = BackplaneError("the backplane was stopped")
        try:
            await asyncio.sleep(stream.pause)
            stream.pause = min(2 * stream.pause + 0.02, LONGEST_PAUSE)
            await self.api(f"STREAM.CREATE.{stream.name}", stream.config(int(time.time() * 1e6)))
            error = None
        except BackplaneError as raised:
            is_there = isinstance(raised, Rejected) and raised.code == OTHER_CONFIG  # as somebody else made it
            error = None if is_there else raised
        finally:
            self._opened(stream, error)
        if error is not None:
            raise error

    def _opened(self, stream: Stream, error: BackplaneError | None) -> None:
        """Store what waits, after all that was sent and not answered: whoever led the stream may have died with it."""
        stream.opening = None
        stream.is_open = error is None
        waiting, stream.waiting, stream.waiting_bytes = stream.waiting, [], 0
        unanswered = list(stream.sent.values()) if error is None else []
        for put in sorted([*unanswered, *waiting], key=lambda put: put.number):
            if error is None:
                self._send(stream, put)
            elif not put.future.done():
                put.future.set_exception(error)

    # -- reading

    async def scan(self, stream: Stream, subject: str, start: int = 1, most: int | None = None) -> list[Stored]:
        """Returns what is stored from a sequence on, as many as are asked for."""
        found: list[Stored] = []
        while most is None or len(found) < most:
            batch = PAGE if most is None else min(PAGE, most - len(found))
            page, is_whole = await self._get(stream, {"seq": max(start, 1), "next_by_subj": subject, "batch": batch})
            found += page
            if is_whole:
                break
            start = page[-1].sequence + 1
        return found

    async def last(self, stream: Stream, subjects: Sequence[str], up_to: int = 0) -> list[Stored]:
        """Returns the newest message of each subject; with ``up_to`` as it was when that sequence was stored."""
        found: list[Stored] = []
        for first in range(0, len(subjects), PAGE):
            found += await self._last(stream, subjects[first : first + PAGE], up_to)
        return found

    async def _last(self, stream: Stream, subjects: Sequence[str], up_to: int) -> list[Stored]:
        found: list[Stored] = []
        query: dict[str, Any] = {"multi_last": subjects, **({"up_to_seq": up_to} if up_to else {})}
        while True:
            try:
                page, is_whole = await self._get(stream, query)
            except Rejected as error:
                if error.code != 413 or len(subjects) == 1:
                    raise
                halves = subjects[: len(subjects) // 2], subjects[len(subjects) // 2 :]
                return [stored for half in halves for stored in await self._last(stream, half, up_to)]
            found += page
            if is_whole:
                return found
            query["seq"] = page[-1].sequence + 1

    async def _get(self, stream: Stream, query: dict[str, Any]) -> tuple[list[Stored], bool]:
        """Returns a page, and whether nothing comes after it."""
        query["max_bytes"] = max(PAGE_BYTES, 2 * self.link.max_payload)
        body, subject = orjson.dumps(query), f"$JS.API.DIRECT.GET.{stream.name}"
        deadline = asyncio.get_running_loop().time() + self.link.timeout
        while True:
            answer = await self.link.ask(lambda reply: plain(subject, reply, body), len(body), is_many=True)
            if answer.status != 503 or asyncio.get_running_loop().time() > deadline:
                break
            stream.is_open = False
            await asyncio.shield(self._open(stream))
        if answer.status not in (204, 404):
            raise Rejected(answer.status, "a read of what is stored")
        messages = [_stored(*message) for message in answer.messages]
        return messages, not messages or header(answer.end, b"Nats-Num-Pending") in (b"", b"0")

    async def holds(self, stream: Stream, subject: str, sequence: int) -> bytes:
        """Returns the headers of a message as the stream's leader has it; b"" if it has none."""
        try:
            got = await self.api(f"STREAM.MSG.GET.{stream.name}", {"seq": sequence})
        except Rejected:
            return b""
        message = got["message"]
        return base64.b64decode(message.get("hdrs", "")) if message["subject"] == subject else b""

    async def purge(self, stream: Stream, **what: Any) -> None:
        """Remove messages."""
        await self.api(f"STREAM.PURGE.{stream.name}", what)

    async def end(self, stream: Stream) -> int:
        """Returns the sequence of the last message ever stored."""
        info = await self.api(f"STREAM.INFO.{stream.name}", {})
        return int(info["state"]["last_seq"])


def _stored(headers: bytes, payload: bytes) -> Stored:
    return Stored(int(header(headers, b"Nats-Sequence")), headers, payload)


def _seconds(stamp: str) -> float:
    """Returns a time as the server writes it, in seconds."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def _result(answer: Answer) -> dict[str, Any]:
    result: dict[str, Any] = orjson.loads(answer.messages[0][1])
    error = result.get("error")
    if error:
        raise Rejected(int(error.get("err_code", 0)), str(error.get("description", "no reason given")))
    return result
