"""An engine without a loop: a target runs each turn itself, and plays the peer on both kinds of wire."""

import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator

from fastws._core import Reactor, TransportWire
from fastws.config import Options

from ..lib.support import holds_nothing


class Loop:
    """The part of an event loop that the engine uses. Its clock stands still: no timer expires."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], object]] = {}
        self.soon: deque[Callable[[], object]] = deque()

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> "Loop":
        return self

    def cancel(self) -> None:
        """The timer that call_later() returns."""

    def turn(self) -> None:
        """Handle what is readable, and everything scheduled."""
        for callback in self.readers.values():
            callback()
        self.settle()

    def settle(self) -> None:
        """Run everything scheduled."""
        while self.soon:
            self.soon.popleft()()


class Faults(logging.Handler):
    """Every error logged by fastws is a failure: nothing that a peer sends may cause more than a warning."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[logging.LogRecord] = []
        logging.getLogger("fastws").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record)

    def check(self) -> None:
        found, self.found = self.found, []
        assert not found, [(record.getMessage(), record.exc_info) for record in found]


class Site:
    """A reactor that listens on a socket, and also takes transports."""

    def __init__(self, server: object, options: Options) -> None:
        self.loop = Loop()
        self.reactor = Reactor(self.loop, server, options, "fuzz-")
        self.faults = Faults()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind("")  # the kernel chooses a name without a file
        self.socket.listen()
        self.socket.setblocking(False)
        self.reactor.listen(self.socket)

    def close(self) -> None:
        self.reactor.shut()
        self.socket.close()
        logging.getLogger("fastws").removeHandler(self.faults)

    def connect(self, over_transport: bool) -> "SocketPeer | TransportPeer":
        return (TransportPeer if over_transport else SocketPeer)(self)

    def check(self) -> None:
        """After the last peer nothing is left, and nothing went wrong."""
        self.faults.check()
        assert holds_nothing(self.reactor), self.reactor.counters
        assert not self.loop.soon


class SocketPeer:
    """A peer of the kind of wire that epoll watches."""

    def __init__(self, site: Site) -> None:
        self.loop = site.loop
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(site.socket.getsockname())
        self.socket.setblocking(False)
        self.loop.turn()

    def send(self, data: bytes) -> None:
        """Send `data` for the engine's next turn."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have hung up
            self.socket.sendall(data)

    def turn(self) -> None:
        self.loop.turn()

    def stall(self) -> bool:
        """Stop reading. False if the wire does not support that."""
        return False

    def go_on(self) -> None:
        """Read again."""

    def half_close(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)
        self.turn()

    def end(self) -> bytes:
        """End. Returns all that the engine has sent, up to its own end."""
        received = bytearray()
        self.half_close()
        while data := self.socket.recv(1 << 16):
            received += data
        self.socket.close()
        self.turn()
        return bytes(received)

    def reset(self) -> None:
        """Reset the connection."""
        self.socket.close()
        self.turn()


class TransportPeer:
    """A peer behind an asyncio transport, which it is itself."""

    def __init__(self, site: Site) -> None:
        self.loop = site.loop
        self.wire = TransportWire(site.reactor)
        self.reads: deque[bytes] = deque()
        self.received = bytearray()
        self.is_reading = True
        self.has_half_closed = False
        self.has_ended = False  # the engine's side
        self.is_lost = False
        self.is_stalled = False
        self.wire.connection_made(self)
        self.loop.settle()

    # -- as the peer

    def send(self, data: bytes) -> None:
        self.reads.append(data)

    def stall(self) -> bool:
        if not (self.is_lost or self.is_stalled):
            self.is_stalled = True
            self.wire.pause_writing()
        return self.is_stalled

    def go_on(self) -> None:
        if self.is_stalled and not self.is_lost:
            self.is_stalled = False
            self.wire.resume_writing()
            self.loop.settle()

    def half_close(self) -> None:
        if not self.has_half_closed:
            self.has_half_closed = True
            self.send(b"")
        self.turn()

    def end(self) -> bytes:
        self.half_close()
        return bytes(self.received)

    def reset(self) -> None:
        self._lose()
        self.loop.settle()

    def turn(self) -> None:
        self.loop.settle()
        while self.reads and self.is_reading and not self.is_lost:
            data = self.reads.popleft()
            if data:
                self.wire.get_buffer(-1)[: len(data)] = data
                self.wire.buffer_updated(len(data))
            elif not self.wire.eof_received():
                self.close()
            self.loop.settle()

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.wire.connection_lost(None)

    # -- as the transport

    def write(self, data: bytes) -> None:
        assert not self.is_stalled
        assert not self.has_ended
        self.received += data

    def write_eof(self) -> None:
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.has_ended = True
        self.loop.call_soon(self._lose)

    abort = close

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> object:
        return {"peername": ("192.0.2.1", 4711)}.get(name)


def moves(data: bytes, letters: bytes) -> Iterator[bytes]:
    """The peer's moves: `~` and one of the letters, or bytes to be sent in one piece."""
    start = at = 0
    while (at := data.find(b"~", at)) >= 0:
        if data[at + 1 : at + 2] and data[at + 1] in letters:
            if start < at:
                yield data[start:at]
            yield data[at : at + 2]
            start = at + 2
        at += 1
    if data[start:]:
        yield data[start:]
