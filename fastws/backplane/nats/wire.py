"""The protocol of NATS: from bytes to messages, and one connection that speaks it."""

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

from ..base import Receiver

__all__ = ["Connection", "Handler", "NATSProtocolError", "Parser", "headed", "plain"]

#: Called with the subject, the headers (b"" if there are none) and the payload.
Handler: TypeAlias = Callable[[bytes, bytes, bytes], None]

MOST_LINE = 1 << 16  # bytes of a line; the longest is INFO with the addresses of a large cluster
MOST_MESSAGE = 1 << 26  # bytes of headers and payload; servers allow no more

MOST_REFUSALS = 20  # of messages and subscriptions, that are logged

logger = logging.getLogger("fastws.backplane")


class NATSProtocolError(Exception):
    """What came is not the protocol of NATS."""


class Parser:
    """Calls receivers (by the ids of their subscriptions) with payloads, handlers with whole messages, ``on_line`` with
    all other lines."""

    def __init__(
        self, receivers: dict[bytes, Receiver], handlers: dict[bytes, Handler], on_line: Callable[[bytes], None]
    ) -> None:
        self._receivers = receivers
        self._handlers = handlers
        self._on_line = on_line
        self._kept: list[bytes] = []  # of an unfinished message
        self._size = 0
        self._needed = 0

    def feed(self, data: bytes) -> None:
        """Take what was received; raises NATSProtocolError if it makes no sense."""
        if self._kept:
            self._kept.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._kept)
            self._kept.clear()
        rest = self._parse(data)
        if rest < len(data):
            self._kept.append(data[rest:])
            self._size = len(data) - rest

    def _parse(self, data: bytes) -> int:
        """Returns where the first unfinished message begins; ``_needed`` is how many bytes it has at least."""
        at, size, receivers = 0, len(data), self._receivers
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > MOST_LINE:
                    raise NATSProtocolError(f"a line of more than {MOST_LINE:,} bytes")
                self._needed = size - at + 1
                return at
            words = data[at:end].split()
            if not words or words[0] not in (b"MSG", b"HMSG"):
                self._on_line(data[at:end])
                at = end + 2
                continue
            start = end + 2
            stop = start + self._length(words)
            if stop + 2 > size:
                self._needed = stop + 2 - at
                return at
            if data[stop : stop + 2] != b"\r\n":
                raise NATSProtocolError("a message is longer than it says")
            at = stop + 2
            receive = receivers.get(words[2])
            if receive is not None and words[0] == b"MSG":
                try:
                    receive(data[start:stop])
                except Exception:
                    logger.exception("A receiver of a message from NATS failed.")
            else:
                self._handle(words, data, start, stop)
        return at

    def _length(self, words: list[bytes]) -> int:
        least = 4 if words[0] == b"MSG" else 5
        if not least <= len(words) <= least + 1 or not words[-1].isdigit() or len(words[-1]) > 9:
            raise NATSProtocolError(f"{b' '.join(words)[:80]!r} is not how a message begins")
        length = int(words[-1])
        if length > MOST_MESSAGE:
            raise NATSProtocolError(f"a message of {length:,} bytes")
        return length

    def _handle(self, words: list[bytes], data: bytes, start: int, stop: int) -> None:
        """Pass on a message that has headers, or is for a handler."""
        body = start
        if words[0] == b"HMSG":
            if not words[-2].isdigit() or len(words[-2]) > 9 or start + int(words[-2]) > stop:
                raise NATSProtocolError(f"{b' '.join(words)[:80]!r} is not how a message begins")
            body = start + int(words[-2])
        receive, handle = self._receivers.get(words[2]), self._handlers.get(words[2])
        try:
            if receive is not None:
                receive(data[body:stop])
            elif handle is not None:
                handle(words[1], data[start:body], data[body:stop])
        except Exception:
            logger.exception("A handler of a message from NATS failed.")


def plain(subject: str, reply: str, payload: bytes) -> bytes:
    """Returns a message without headers, ready to be written."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload)


def headed(subject: str, reply: str, headers: str, payload: bytes) -> bytes:
    """Returns a message with headers, each a line that ends in CR LF."""
    block = f"NATS/1.0\r\n{headers}\r\n".encode()
    head = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n".encode()
    return b"".join((head, block, payload, b"\r\n"))


class Connection(asyncio.Protocol):
    """One connection to one server. All that is written in one turn of the loop goes out at once."""

    def __init__(self, receivers: dict[bytes, Receiver], handlers: dict[bytes, Handler]) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(receivers, handlers, self._on_line)
        self._transport: Any = None  # asyncio.Transport; that of uvloop is none by its type
        self._queued: list[bytes] = []
        self._queued_bytes = 0
        self._refused: set[str] = set()
        self._pongs: deque[asyncio.Future[bool]] = deque()
        self.info: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self.heard = True  # something, since somebody last set this to False

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read messages."""
        self.heard = True
        try:
            self._parser.feed(data)
        except NATSProtocolError as error:
            self.abort(f"it does not speak NATS: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """The end, if it was not known before."""
        self.abort(f"it closed the connection{f' ({error})' if error else ''}")

    # -- called by the link

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Go on with TLS."""
        self._transport = await self._loop.start_tls(self._transport, self, context, server_hostname=host)

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return not self.closed.done()

    @property
    def waiting(self) -> int:
        """Bytes that the server has not taken yet."""
        return self._queued_bytes + (self._transport.get_write_buffer_size() if self.is_open else 0)

    def write(self, data: bytes) -> None:
        """Send at the end of this turn of the loop."""
        if not self._queued:
            self._loop.call_soon(self.flush)
        self._queued.append(data)
        self._queued_bytes += len(data)

    def flush(self) -> None:
        """Send now."""
        if self._queued and self.is_open:
            self._transport.write(b"".join(self._queued))
        self._queued.clear()
        self._queued_bytes = 0

    def ping(self) -> asyncio.Future[bool]:
        """Returns a future: True when the server has taken all that was written before, False at the end."""
        pong = self._loop.create_future()
        self._pongs.append(pong)
        self.write(b"PING\r\n")
        return pong

    def abort(self, reason: str) -> None:
        """End the connection; the first reason counts."""
        if self.closed.done():
            return
        self.closed.set_result(reason)
        while self._pongs:
            _resolve(self._pongs.popleft(), False)
        if self._transport is not None:
            self._transport.abort()

    async def close(self, timeout: float) -> None:
        """Send what is waiting, then end the connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.ping()
        self.abort("we closed the connection")

    def _on_line(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        if verb == b"PING":
            self.write(b"PONG\r\n")
        elif verb == b"PONG":
            if self._pongs:
                _resolve(self._pongs.popleft(), True)
        elif verb == b"INFO":
            self._on_info(rest)
        elif verb == b"-ERR":
            self._on_error(rest.strip(b" '").decode("utf-8", "replace"))
        elif verb != b"+OK":
            raise NATSProtocolError(f"{line[:80]!r}")

    def _on_info(self, text: bytes) -> None:
        try:
            info = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise NATSProtocolError(f"INFO with {error}") from None
        if not isinstance(info, dict):
            raise NATSProtocolError("INFO that is no object")
        if not self.info.done():
            self.info.set_result(info)

    def _on_error(self, error: str) -> None:
        """All but those about one's rights end the connection."""
        if error.lower().startswith("permissions violation"):
            if error not in self._refused and len(self._refused) < MOST_REFUSALS:
                self._refused.add(error)
                logger.warning("NATS refuses: %s", error)
        else:
            self.abort(error)


def _resolve(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():  # nobody has stopped waiting
        future.set_result(result)
