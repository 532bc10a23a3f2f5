"""The link to NATS: one connection at a time, to whichever server answers, and again when it ends."""

import asyncio
import contextlib
import itertools
import logging
import random
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import orjson

from ...errors import ConfigurationError
from ..base import BackplaneError, Receiver
from .address import Address, Host
from .wire import Connection, Handler, plain

__all__ = ["Answer", "Link"]

T = TypeVar("T")

OLDEST = (2, 11, 4)  # 2.11 knows how things were at a sequence, and times to live; 2.11.0 fails at restarts
LEAST_PAUSE, MOST_PAUSE = 0.05, 2.0  # seconds between two tries to connect
INBOX = b"1"  # the id of the subscription to answers

logger = logging.getLogger("fastws.backplane")


class Unreachable(Exception):
    """No server can be used now."""


class Answer(NamedTuple):
    """What the server answered: headers and payloads, and how they end (0: with the only one; else as HTTP says)."""

    status: int
    messages: list[tuple[bytes, bytes]]
    end: bytes
    """The headers that came with the status."""


class Ask:
    """A question under way. It is asked again when the connection was lost."""

    __slots__ = ("deadline", "encode", "future", "is_many", "messages", "size")

    def __init__(self, encode: Callable[[str], bytes], is_many: bool, size: int, deadline: float) -> None:
        self.encode, self.is_many, self.size, self.deadline = encode, is_many, size, deadline
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.messages: list[tuple[bytes, bytes]] = []


class Link:
    """Publishes, subscribes, asks. ``prepare`` is awaited whenever it is connected, before ``on_up`` is called."""

    def __init__(
        self,
        address: Address,
        name: str,
        *,
        timeout: float,
        buffer: int,
        prepare: Callable[[], Awaitable[None]],
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._address, self._name = address, name
        self.timeout, self._buffer = timeout, buffer
        self._prepare, self._on_up, self._on_down = prepare, on_up, on_down
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._is_up = asyncio.Event()
        self._said = ""  # why it is away, if that is in the log
        self._task: asyncio.Task[None] | None = None
        self._receivers: dict[bytes, Receiver] = {}
        self._handlers: dict[bytes, Handler] = {INBOX: self._on_answer}
        self._inbox = f"_INBOX.{secrets.token_hex(11)}."
        self._subjects = {INBOX: self._inbox + "*"}
        self._numbers = itertools.count(2)
        self._asks: dict[bytes, Ask] = {}  # by the end of the subject of their answers, the oldest first
        self._tokens = itertools.count()
        self._asked = 0  # bytes of them
        self._sweep: asyncio.TimerHandle | None = None
        self.lost = 0
        self.max_payload = 1 << 20

    # -- connecting

    @property
    def is_up(self) -> bool:
        """Whether the server answers."""
        return self._is_up.is_set()

    async def start(self) -> None:
        """Connect, now or later; raises ConfigurationError where no later can help."""
        try:
            await self._come_up()
        except Unreachable as error:
            self._say(f"cannot be reached: {error}")
        self._task = self._loop.create_task(self._keep())

    async def stop(self) -> None:
        """Send what is waiting, wait for what was asked, and disconnect; for at most twice the timeout."""
        asked = [ask.future for ask in self._asks.values()]
        if asked and self.is_up:
            await asyncio.wait(asked, timeout=self.timeout)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._connection is not None:
            await self._connection.close(self.timeout)
        self._connection = None
        self._is_up.clear()
        self._fail(list(self._asks), "the backplane was stopped")

    async def _keep(self) -> None:
        """Be connected, for ever."""
        pause = LEAST_PAUSE
        while True:
            if self._connection is not None:
                reason = await self._watch(self._connection)
                pause = LEAST_PAUSE
                self._go_down(reason)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, MOST_PAUSE)
            try:
                await self._come_up()
            except Unreachable as error:
                self._say(f"cannot be reached: {error}")
            except ConfigurationError as error:
                self._say(f"cannot be used: {error}", is_final=True)
            except Exception:
                logger.exception("NATS at %s cannot be used.", self._address.url)

    async def _watch(self, connection: Connection) -> str:
        """Returns why a connection ended. One that is silent is asked once, and then given up."""
        is_asked = False
        while True:
            connection.heard = False
            await asyncio.wait([connection.closed], timeout=self.timeout / 2)
            if connection.closed.done():
                return connection.closed.result()
            if connection.heard:
                is_asked = False
            elif is_asked:
                connection.abort(f"it has not answered for {self.timeout:g} s")
            else:
                is_asked = True
                connection.ping()

    async def _come_up(self) -> None:
        connection = self._connection = await self._connect()
        try:
            for number, subject in self._subjects.items():
                connection.write(b"SUB %b %b\r\n" % (subject.encode(), number))
            self._ask_again(connection)
            await _unless_closed(connection, self._prepare())
            await _unless_closed(connection, connection.ping())
        except BaseException as error:
            self._connection = None
            connection.abort(str(error))
            if isinstance(error, BackplaneError):
                raise Unreachable(str(error)) from None
            raise
        if self._said:
            self._said = ""
            logger.warning("NATS at %s is back.", self._address.url)
        self._is_up.set()
        self._on_up()

    def _go_down(self, reason: str) -> None:
        self._connection = None
        self._is_up.clear()
        self._say(f"is away: {reason}")
        self._on_down(reason)

    def _say(self, what: str, *, is_final: bool = False) -> None:
        """Log why it is away: once, and again where it is for another reason, which does not pass by itself."""
        if not self._said or (is_final and self._said != what):
            logger.warning("NATS at %s %s; trying again until it is back.", self._address.url, what)
            self._said = what

    async def _connect(self) -> Connection:
        """Returns a connection to any of the servers; raises Unreachable, or ConfigurationError if one refuses."""
        hosts = list(self._address.hosts)
        random.shuffle(hosts)
        reasons = []
        for host in hosts:
            connection = Connection(self._receivers, self._handlers)
            try:
                async with asyncio.timeout(self.timeout):
                    await self._loop.create_connection(lambda made=connection: made, host.name, host.port)  # type: ignore[misc]
                    await self._greet(connection, host)
                return connection
            except TimeoutError:
                reasons.append(f"{host.name}:{host.port}: no answer within {self.timeout:g} s")
            except ssl.SSLCertVerificationError as error:
                connection.abort("its certificate")
                raise ConfigurationError(
                    f"the certificate of NATS at {host.name}:{host.port} is not to be trusted: {error.verify_message}"
                ) from None
            except (OSError, Unreachable) as error:
                reasons.append(f"{host.name}:{host.port}: {error}")
            except BaseException:
                connection.abort("it cannot be used")
                raise
            connection.abort("it cannot be used")
        raise Unreachable("; ".join(reasons))

    async def _greet(self, connection: Connection, host: Host) -> None:
        """Log in."""
        info = await _unless_closed(connection, connection.info)
        _check_version(info, host)
        if isinstance(info.get("max_payload"), int):
            self.max_payload = info["max_payload"]
        if self._address.tls is not None or info.get("tls_required"):
            if not (info.get("tls_required") or info.get("tls_available")):
                raise ConfigurationError(f"NATS at {host.name}:{host.port} has no TLS: begin its URL with nats://")
            await connection.secure(self._address.tls or ssl.create_default_context(), host.name)
        hello = {
            **self._address.login,
            "verbose": False,
            "pedantic": False,
            "echo": False,
            "headers": True,
            "no_responders": True,
            "protocol": 1,
            "lang": "python",
            "version": "1",
            "name": self._name,
        }
        connection.write(b"CONNECT %b\r\n" % orjson.dumps(hello))
        try:
            await _unless_closed(connection, connection.ping())
        except Unreachable as error:
            if "authorization" in str(error).lower() or "authentication" in str(error).lower():
                raise ConfigurationError(
                    f"NATS at {host.name}:{host.port} refuses the user, password or token of its URL: {error}"
                ) from None
            raise

    # -- messages

    def publish(self, subject: str, payload: bytes) -> None:
        """Send; whatever cannot be sent is counted. Raises ValueError where no server would take it."""
        self.check_size(len(payload))
        self.write(plain(subject, "", payload))

    def write(self, message: bytes) -> None:
        """Send what is ready to be sent; whatever cannot be sent is counted."""
        connection = self._connection
        if connection is None or not connection.is_open or connection.waiting > self._buffer:
            self.lost += 1
        else:
            connection.write(message)

    def check_size(self, size: int) -> None:
        """Raises ValueError where no server would take so much."""
        if size > self.max_payload:
            raise ValueError(f"a message of {size:,} bytes: NATS takes {self.max_payload:,} (its option max_payload)")

    def receive(self, subject: str, receiver: Receiver) -> bytes:
        """Subscribe to payloads; returns what `unsubscribe` takes."""
        return self._subscribe(subject, self._receivers, receiver)

    def handle(self, subject: str, handler: Handler) -> bytes:
        """Subscribe to messages with their headers; returns what `unsubscribe` takes."""
        return self._subscribe(subject, self._handlers, handler)

    def _subscribe(self, subject: str, table: dict[bytes, T], member: T) -> bytes:
        number = b"%d" % next(self._numbers)
        table[number] = member
        self._subjects[number] = subject
        if self._connection is not None:
            self._connection.write(b"SUB %b %b\r\n" % (subject.encode(), number))
        return number

    def unsubscribe(self, number: bytes) -> None:
        """Take back a subscription; nothing more is received."""
        self._receivers.pop(number, None)
        self._handlers.pop(number, None)
        if self._subjects.pop(number, None) and self._connection is not None:
            self._connection.write(b"UNSUB %b\r\n" % number)

    async def settle(self) -> None:
        """Wait until the server knows all that is subscribed to."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timeout):
                while True:
                    await self._is_up.wait()
                    if self._connection is not None and await self._connection.ping():
                        return
                    await asyncio.sleep(0)
        raise self.late()

    # -- questions

    def ask(self, encode: Callable[[str], bytes], size: int, *, is_many: bool = False) -> asyncio.Future[Answer]:
        """Send what ``encode`` makes of the subject for the answer; of ``size`` bytes, about.

        With ``is_many`` there are several answers, the last of which has a status.
        """
        ask = Ask(encode, is_many, size, self._loop.time() + self.timeout)
        if self.is_full(size):
            ask.future.set_exception(self.full())
            return ask.future
        self._asked += size
        self._put(ask, self._connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self.timeout / 10, self._give_up)
        return ask.future

    def is_full(self, more: int) -> bool:
        """Whether so many bytes more are too much for a server that is away, or does not read."""
        connection = self._connection
        return (connection is None or connection.waiting > self._buffer) and self._asked + more > self._buffer

    def full(self) -> BackplaneError:
        """Returns what is raised then."""
        return BackplaneError(f"too much is waiting for NATS at {self._address.url}")

    def _put(self, ask: Ask, connection: Connection | None) -> None:
        token = f"{next(self._tokens):x}"
        self._asks[token.encode()] = ask
        if connection is not None:
            connection.write(ask.encode(self._inbox + token))

    def _ask_again(self, connection: Connection) -> None:
        """All that was not answered, under new names: late answers to the old ones must not be mixed in."""
        asks, self._asks = self._asks, {}
        for ask in asks.values():
            if ask.future.done():
                self._asked -= ask.size
            else:
                ask.messages.clear()
                self._put(ask, connection)

    def _on_answer(self, subject: bytes, headers: bytes, payload: bytes) -> None:
        token = subject[len(self._inbox) :]
        ask = self._asks.get(token)
        if ask is None:
            return
        status = int(headers[9:12]) if headers[8:9] == b" " else 0
        if not status:
            ask.messages.append((headers, payload))
        if status or not ask.is_many:
            del self._asks[token]
            self._asked -= ask.size
            if not ask.future.done():
                ask.future.set_result(Answer(status, ask.messages, headers if status else b""))

    def _give_up(self) -> None:
        """Fail what was not answered in time."""
        now = self._loop.time()
        late = list(itertools.takewhile(lambda token: self._asks[token].deadline <= now, self._asks))
        self._fail(late, str(self.late()))
        self._sweep = self._loop.call_later(self.timeout / 10, self._give_up) if self._asks else None

    def _fail(self, tokens: list[bytes], reason: str) -> None:
        for token in tokens:
            ask = self._asks.pop(token)
            self._asked -= ask.size
            if not ask.future.done():
                ask.future.set_exception(BackplaneError(reason))
        if not self._asks and self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def late(self) -> BackplaneError:
        """Returns what is raised when there was no answer in time."""
        return BackplaneError(f"NATS at {self._address.url} has not answered within {self.timeout:g} s")


async def _unless_closed(connection: Connection, awaitable: Awaitable[T]) -> T:
    """Returns the result; raises Unreachable if the connection ends before."""
    task = asyncio.ensure_future(awaitable)
    both: list[asyncio.Future[Any]] = [task, connection.closed]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if connection.closed.done():
            raise Unreachable(connection.closed.result())
        return task.result()
    finally:
        if not task.done():
            task.cancel()
        elif not task.cancelled():
            task.exception()  # somebody has seen it


def _check_version(info: dict[str, Any], host: Host) -> None:
    version = str(info.get("version"))
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigurationError(
            f"NATS at {host.name}:{host.port} is version {version[:40]}: fastws needs {oldest} or later"
        )
