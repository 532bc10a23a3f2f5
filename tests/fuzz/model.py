"""RFC 6455's receiving end in plain Python, written from the RFC: what a server must answer to a peer's bytes.

Of the engine it knows only what fastws promises beyond the RFC: a Close waits for the messages that wait for a handler,
reading stops after 64 of them or `max_message_size`, and a peer that does not read gets one pong.
"""

import codecs
import zlib
from collections import deque
from dataclasses import dataclass, field

from ..lib.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, masked

MOST_WAITING = 64  # messages
TAILS = [
    byte * count for byte in (b"\x80", b"\xbf") for count in (1, 2, 3)
]  # one of them completes any valid start of a character


class Violation(Exception):
    """Fail the connection with `code` (RFC 6455 7.1.7)."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Header:
    """The header of a frame (RFC 6455 5.2); `left` bytes of its payload are still to come, `mask` comes next."""

    fin: bool
    opcode: int
    left: int
    mask: bytes
    size: int
    is_deflated: bool


def read_header(data: bytearray, may_deflate: bool) -> Header | None:
    """The header that `data` begins with; None if it is incomplete. Raises Violation at the first sign of one."""
    if not data:
        return None
    fin, rsv, opcode = bool(data[0] & 0x80), data[0] & 0x70, data[0] & 0x0F
    is_deflated = may_deflate and rsv == 0x40 and opcode in (TEXT, BINARY)
    if (rsv and not is_deflated) or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Violation(1002)
    if len(data) < 2:
        return None
    length = data[1] & 0x7F
    if data[1] < 0x80 or (opcode >= CLOSE and not (fin and length <= 125)):
        raise Violation(1002)
    size, least = {126: (4, 126), 127: (10, 65536)}.get(length, (2, 0))
    if len(data) < size:
        return None
    if size > 2:
        length = int.from_bytes(data[2:size])
        if length < least or length >= 1 << 63:
            raise Violation(1002)
    if len(data) < size + 4:
        return None
    return Header(fin, opcode, length, bytes(data[size : size + 4]), size + 4, is_deflated)


TAIL = b"\0\0\xff\xff"
PROBES = {b"\1\0\0\xff\xff": b"", b"\1\1\0\xfe\xffX": b"X"}  # last blocks, and what is in them


def inflate(data: bytes, limit: int) -> bytes:
    """A message as a client compressed it (RFC 7692 7.2.2). Raises Violation."""
    message = bytearray()
    stream = zlib.decompressobj(-15)
    for part in (data, TAIL):
        while part:
            try:
                message += stream.decompress(part, limit + 1 - len(message))
            except zlib.error:
                raise Violation(1007) from None
            if len(message) > limit:
                raise Violation(1009)
            part, has_ended = stream.unused_data, stream.eof
            if has_ended:
                stream = zlib.decompressobj(-15)
                if not part:
                    return bytes(message)  # it may end without an empty block
    if any(ends_with(stream.copy(), probe) != found for probe, found in PROBES.items()):
        raise Violation(1007)
    return bytes(message)


def ends_with(stream: "zlib._Decompress", last: bytes) -> bytes | None:
    """What a last block expands to, where the stream stands between two blocks; otherwise None, or anything."""
    try:
        found = stream.decompress(last)
    except zlib.error:
        return None
    return found if stream.eof and not stream.unused_data else None


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def may_be_sent(code: int) -> bool:
    """RFC 6455 7.4.1 and 7.4.2; 1012 to 1014 are IANA's."""
    return code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code < 5000


@dataclass
class Server:
    """An echo server. Its handler answers at once, or (`is_async`) when `answer` is called."""

    max_message_size: int
    is_async: bool
    may_deflate: bool = False
    sent: list[tuple[int, bytes | int]] = field(default_factory=list)  # opcode and payload; of a Close the code
    told: list[tuple[str, object]] = field(default_factory=list)  # to the listener
    is_open: bool = True  # neither side has begun to close
    is_over: bool = False  # no longer reading
    is_ended: bool = False  # the peer has stopped sending
    is_stalled: bool = False  # the peer does not read
    pong_due: bytes | None = None
    unread: bytearray = field(default_factory=bytearray)
    header: Header | None = None  # of the frame that is being read
    payload: bytearray = field(default_factory=bytearray)  # of a control frame
    message: bytearray = field(default_factory=bytearray)
    opcode: int | None = None  # of the message that is being read
    is_deflated: bool = False  # likewise
    handled: str | bytes | None = None
    waiting: deque[str | bytes] = field(default_factory=deque)
    is_paused: bool = False

    def __post_init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    # -- what the peer does

    def receive(self, data: bytes) -> None:
        self.unread += data
        self._read()

    def half_close(self) -> None:
        """The peer stops sending, which is noticed when everything sent has been read."""
        self.is_ended = True
        if not self.is_paused:
            self.lose()

    def lose(self) -> None:
        """The peer is gone without a Close."""
        if not self.is_over:
            self._end(1006)

    def stall(self) -> None:
        self.is_stalled = True

    def go_on(self) -> None:
        self.is_stalled = False
        if self.pong_due is not None and self.is_open:
            self.sent.append((PONG, self.pong_due))
        self.pong_due = None

    # -- what the server does

    def answer(self) -> None:
        """The running handler ends."""
        done, self.handled = self.handled, None
        if self.is_open and done is not None:
            self._echo(done)
        if self.waiting:
            self.handled = self.waiting.popleft()
            self.told.append(("message", self.handled))
        if not self.waiting:
            self.is_paused = False
            self._read()

    def close(self, code: int) -> None:
        if self.is_open:
            self.sent.append((CLOSE, code))
            self.is_open = self.is_paused = False
            self.waiting.clear()
            self._read()

    # -- frames

    def _read(self) -> None:
        try:
            while not (self.is_over or self.is_paused) and self._step():
                pass
            if self.is_ended and not self.is_paused:
                self.lose()
        except Violation as violation:
            if self.is_open:
                self.sent.append((CLOSE, violation.code))
            self.told.append(("error", violation.code))
            self._end(1006)

    def _step(self) -> bool:
        """Process one header, or the payload received so far. Returns whether to continue."""
        return self._begin_frame() if self.header is None else self._take_payload()

    def _begin_frame(self) -> bool:
        header = read_header(self.unread, self.may_deflate)
        if header is None:
            return False
        if header.opcode == CLOSE and self.waiting:
            self.is_paused = True
            return False
        if header.opcode < CLOSE:
            if (header.opcode == CONTINUATION) != (self.opcode is not None):
                raise Violation(1002)
            is_deflated = self.is_deflated if header.opcode == CONTINUATION else header.is_deflated
            loss = self.max_message_size // 16 + 16 if is_deflated else 0
            if self.is_open and len(self.message) + header.left > self.max_message_size + loss:
                raise Violation(1009)
            self.is_deflated = is_deflated
            if header.opcode != CONTINUATION:
                self.opcode = header.opcode
        del self.unread[: header.size]
        self.header = header
        return True

    def _take_payload(self) -> bool:
        header = self.header
        part = masked(bytes(self.unread[: header.left]), header.mask)
        del self.unread[: header.left]
        header.left -= len(part)
        turn = len(part) % 4
        header.mask = header.mask[turn:] + header.mask[:turn]
        if header.opcode >= CLOSE:
            self.payload += part
        elif self.is_open:
            self.message += part
            if self.opcode == TEXT and not self.is_deflated:
                self._decode(part)
        if header.left:
            return False
        self.header = None
        if header.opcode >= CLOSE:
            payload, self.payload = bytes(self.payload), bytearray()
            self._control(header.opcode, payload)
        elif header.fin:
            opcode, self.opcode = self.opcode, None
            message, self.message = bytes(self.message), bytearray()
            if self.is_open and self.is_deflated:
                message = inflate(message, self.max_message_size)
                if opcode == TEXT:
                    self._decode(message)
            if self.is_open:
                self._deliver(message if opcode == BINARY else message.decode() if self._decode(b"", True) else "")
        return True

    def _decode(self, part: bytes, final: bool = False) -> bool:
        try:
            self.decoder.decode(part, final)
        except UnicodeDecodeError:
            raise Violation(1007) from None
        rest, _ = self.decoder.getstate()
        if rest and not any(is_text(rest + tail) for tail in TAILS):
            raise Violation(1007)
        return True

    def _deliver(self, message: str | bytes) -> None:
        if self.handled is not None:
            self.waiting.append(message)
            if len(self.waiting) >= MOST_WAITING or sum(map(len, self.waiting)) >= self.max_message_size:
                self.is_paused = True
            return
        self.told.append(("message", message))
        if self.is_async:
            self.handled = message
        else:
            self._echo(message)

    def _echo(self, message: str | bytes) -> None:
        self.sent.append((TEXT, message.encode()) if isinstance(message, str) else (BINARY, message))

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._closed_by_peer(payload)
        elif opcode == PING and self.is_open:
            if self.is_stalled:
                self.pong_due = payload
            else:
                self.sent.append((PONG, payload))

    def _closed_by_peer(self, payload: bytes) -> None:
        """RFC 6455 5.5.1."""
        code = int.from_bytes(payload[:2]) if payload else 1005
        if len(payload) == 1 or (payload and not may_be_sent(code)):
            raise Violation(1002)
        if not is_text(payload[2:]):
            raise Violation(1007)
        if self.is_open:
            self.sent.append((CLOSE, code))
        self._end(code, payload[2:].decode())

    def _end(self, code: int, reason: str = "") -> None:
        self.is_open, self.is_over = False, True
        self.waiting.clear()
        self.told.append(("closed", (code, reason)))
