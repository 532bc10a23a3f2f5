"""Frames: whatever a peer sends after the handshake, split anywhere, the engine does what `model.Server` does.

Byte of options: 1, the wire is a transport; 2, the handler is async; 4, a message has at most 64 bytes; 8, both sides
have agreed on compression. Unless the rest
begins with `~|`, its first bytes come with the handshake. Letters: `a`, the running handler ends; `c`, the server
closes; `s`, the peer stops reading (only with a transport); `g`, it reads again; `e`, it stops sending; `x`, it resets
the connection, which is the end. The first `~b` stands for 64 KiB.
"""

import weakref
from collections.abc import Iterator

from fastws import ProtocolError
from fastws._core import Endpoint, Reactor, WebSocket, accept_response
from fastws.config import Options

from ..lib.raw import BINARY, CLOSE, TEXT, request
from . import model
from .wires import Site, moves

HANDSHAKE = request("/", extra=[("Sec-WebSocket-Extensions", "permessage-deflate")])
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
BULK = b"b" * 65536
# Of a message, in bytes; the second of each is that of option 4. Where there is compression, all messages of an input
# expand to less than what makes a peer wait.
LIMITS = {False: (1 << 20, 64), True: (4096, 64)}


class Pending:
    """The result of an async handler; nobody awaits it."""

    def __await__(self) -> Iterator[None]:
        raise NotImplementedError


class Echo(Endpoint):
    """An endpoint for the reactor, with an echo as its listener."""

    def __init__(self, reactor: Reactor, max_message_size: int, may_deflate: bool) -> None:
        self.life = self
        options = Options(
            max_message_size=max_message_size,
            ping_interval=0,
            compression="shared" if may_deflate else "off",
            compression_threshold=0,
        )
        self._attach(reactor, self.on_message, options)

    def begin(self, is_async: bool) -> None:
        self.is_async = is_async
        self.told: list[tuple[str, object]] = []
        self.handled: str | bytes | None = None

    def on_message(self, ws: WebSocket, message: str | bytes) -> str | bytes | Pending:
        self.told.append(("message", message))
        if not self.is_async:
            return message
        assert self.handled is None, "one handler at a time"
        self.handled = message
        return Pending()

    def answer(self, ws: WebSocket) -> None:
        """The running handler ends."""
        message, self.handled = self.handled, None
        ws._take_result(message)

    def await_message(self, ws: WebSocket, awaitable: Pending) -> None:
        pass

    def handler_failed(self, ws: WebSocket, error: BaseException) -> None:
        raise error

    def protocol_failed(self, ws: WebSocket, error: ProtocolError) -> None:
        self.told.append(("error", error.code))

    def closed(self, ws: WebSocket, code: int, reason: str) -> None:
        self.told.append(("closed", (code, reason)))


class Target:
    """One engine for all inputs, with an endpoint for each limit."""

    def __init__(self) -> None:
        self.site = Site(self, Options())
        self.endpoints = {
            may_deflate: [Echo(self.site.reactor, limit, may_deflate) for limit in limits]
            for may_deflate, limits in LIMITS.items()
        }

    def on_request(self, ws: WebSocket) -> None:
        self.ws = ws
        accept_response(ws.request, self.may_deflate)
        assert ws._accept(self.endpoint, ACCEPTED)
        ws._ready()

    def on_idle(self) -> None:
        pass

    def check(self, data: bytes) -> None:
        """Raises AssertionError if the engine and the model differ."""
        options = data[0] if data else 0
        is_small = bool(options & 4)
        self.may_deflate = bool(options & 8)
        self.endpoint = self.endpoints[self.may_deflate][is_small]
        self.endpoint.begin(is_async=bool(options & 2))
        limit = LIMITS[self.may_deflate][is_small]
        expected = model.Server(limit, is_async=bool(options & 2), may_deflate=self.may_deflate)
        sent = self._play(data[1:].replace(b"~b", BULK, 1), expected, over_transport=bool(options & 1))
        assert self.endpoint.told == expected.told
        assert sent is None or sent == expected.sent
        gone = weakref.ref(self.ws)
        del self.ws
        assert gone() is None, "the engine keeps a connection that is over"
        self.site.check()

    def _play(self, data: bytes, expected: model.Server, over_transport: bool) -> list[tuple[int, bytes | int]] | None:
        """Make each move on both. Returns what the engine sent, or None if that was lost with the connection."""
        peer = self.site.connect(over_transport)
        greeting = len(HANDSHAKE)
        for move in moves(HANDSHAKE + data, b"|acsgex"):
            if move != b"~e":  # which may come together with what was sent last
                peer.turn()
            match move:
                case b"~|":
                    pass
                case b"~a":
                    self._answer(expected)
                case b"~c":
                    self.ws.close(4000)
                    expected.close(4000)
                case b"~s":
                    if peer.stall():
                        expected.stall()
                case b"~g":
                    peer.go_on()
                    expected.go_on()
                case b"~e":
                    peer.half_close()
                    expected.half_close()
                case b"~x":
                    peer.reset()
                    expected.lose()
                    break
                case _ if not expected.is_ended:
                    peer.send(move)
                    expected.receive(move[greeting:])
                    greeting = 0
        peer.turn()
        while self.endpoint.handled is not None:
            self._answer(expected)
            peer.turn()
        if move == b"~x":
            return None
        peer.go_on()
        expected.go_on()
        expected.lose()
        return list(frames(peer.end()))

    def _answer(self, expected: model.Server) -> None:
        if self.endpoint.handled is not None:
            self.endpoint.answer(self.ws)
            expected.answer()


def frames(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """What a server has sent, in the form of `model.Server.sent`."""
    assert data.startswith(ACCEPTED)
    at = len(ACCEPTED)
    while at < len(data):
        opcode, length = data[at] & 0x0F, data[at + 1]
        is_deflated = bool(data[at] & 0x40)
        assert data[at] & 0xB0 == 0x80
        at += 2
        if length >= 126:
            size, least = (2, 126) if length == 126 else (8, 65536)
            length = int.from_bytes(data[at : at + size])
            assert length >= least
            at += size
        payload = data[at : at + length]
        at += length
        if is_deflated:
            assert opcode in (TEXT, BINARY)
            whole = model.inflate(payload, 1 << 20)
            assert len(payload) < len(whole)
            payload = whole
        if opcode == CLOSE:
            payload[2:].decode()
            yield CLOSE, int.from_bytes(payload[:2]) if payload else 1005
        else:
            yield opcode, payload
    assert at == len(data)
