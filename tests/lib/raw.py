"""A client that can send any bytes, and shows the server's frames as on the wire."""

import asyncio
import base64
import hashlib
import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = base64.b64encode(b"0123456789abcdef").decode()
MASK = b"\x12\x34\x56\x78"
TIMEOUT = 20.0  # seconds; nothing takes this long, even on a busy machine


def accept_of(key: str) -> str:
    """The answer to a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()


def request(
    target: str = "/",
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    without: Sequence[str] = (),
    extra: Sequence[tuple[str, str]] = (),
) -> bytes:
    """A handshake; `without` omits fields by name, `extra` adds fields, possibly duplicates."""
    fields = [
        ("Host", "127.0.0.1"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]
    kept = [field for field in fields if field[0] not in without]
    lines = [
        f"{method} {target} {version}",
        *(f"{name}: {value}" for name, value in [*kept, *extra]),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def masked(payload: bytes, mask: bytes) -> bytes:
    repeated = mask * (len(payload) // 4 + 1)
    number = int.from_bytes(payload) ^ int.from_bytes(repeated[: len(payload)])
    return number.to_bytes(len(payload))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_bits: int | None = None,
    announced: int | None = None,
) -> bytes:
    """One frame.

    `length_bits` (7, 16 or 64) forces an encoding of the length, and `announced` a length other
    than the payload's.
    """
    length = len(payload) if announced is None else announced
    bits = length_bits or (7 if length < 126 else 16 if length < 65536 else 64)
    mask_bit = 0 if mask is None else 0x80
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if bits == 7:
        head += bytes([mask_bit | length])
    elif bits == 16:
        head += struct.pack("!BH", mask_bit | 126, length)
    else:
        head += struct.pack("!BQ", mask_bit | 127, length)
    return head + payload if mask is None else head + mask + masked(payload, mask)


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


@dataclass
class Frame:
    """A frame from the server."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int
    masked: bool


@dataclass
class Response:
    """The head of an HTTP response, and its body where Content-Length announces one."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        """The one field of that name, or None."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} occurs {len(values)} times"
        return values[0] if values else None

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


class Raw:
    """A TCP connection to the server; every read has a timeout."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()

    @classmethod
    async def open(cls, url: str, *, receive_buffer: int | None = None) -> Self:
        """Connect to the host and port of `url`; `receive_buffer` is the kernel's, in bytes."""
        parts = urlsplit(url)
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        return cls(sock)

    @property
    def address(self) -> tuple[str, int]:
        return self.sock.getsockname()

    async def send(self, data: bytes, *, pieces: Sequence[bytes] = ()) -> None:
        """Send `data`, then each of `pieces` in its own segment."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, data)
        for piece in pieces:
            # Two turns of the loop: then the server, which runs on it, has read everything before.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await loop.sock_sendall(self.sock, piece)

    async def upgrade(self, target: str = "/", **fields: Any) -> Response:
        """Shake hands and return the 101."""
        await self.send(request(target, **fields))
        response = await self.response()
        assert response.status == 101, response
        return response

    async def response(self) -> Response:
        head = await self.until(b"\r\n\r\n")
        status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status, reason = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [tuple(line.split(": ", 1)) for line in lines]
        response = Response(int(status), reason, fields, b"")
        response.body = await self._exactly(int(response["Content-Length"] or 0))
        return response

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and including the mark."""
        while mark not in self.buffer:
            if not await self._more():
                raise EOFError(f"the server closed after {bytes(self.buffer)!r}")
        return self._take(self.buffer.index(mark) + len(mark))

    async def frame(self) -> Frame:
        first, second = await self._exactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._exactly(2))
            assert length > 125, "the shortest encoding of a length is a MUST"
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._exactly(8))
            assert length > 65535, "the shortest encoding of a length is a MUST"
        payload = await self._exactly(length)
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, bool(second & 0x80))

    async def text(self) -> str:
        """The payload of the next frame, which must be a whole text message."""
        got = await self.frame()
        assert (got.opcode, got.fin, got.rsv, got.masked) == (TEXT, True, 0, False), got
        return got.payload.decode()

    async def close_code(self) -> int:
        """The code of the next frame, which must be a close frame; 1005 if it has none."""
        return (await self.closing())[0]

    async def closing(self) -> tuple[int, str]:
        """Code and reason of the next frame, which must be a close frame."""
        got = await self.frame()
        assert (got.opcode, got.fin, got.rsv, got.masked) == (CLOSE, True, 0, False), got
        if not got.payload:
            return 1005, ""
        return struct.unpack("!H", got.payload[:2])[0], got.payload[2:].decode()

    async def eof(self) -> bytes:
        """Everything still to come; returns once the server has closed its side."""
        while await self._more():
            pass
        rest = bytes(self.buffer)
        self.buffer.clear()
        return rest

    def half_close(self) -> None:
        """Stop sending, but keep reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    async def _exactly(self, length: int) -> bytes:
        while len(self.buffer) < length:
            if not await self._more():
                raise EOFError(f"the server closed after {bytes(self.buffer[:100])!r}")
        return self._take(length)

    def _take(self, length: int) -> bytes:
        taken = bytes(self.buffer[:length])
        del self.buffer[:length]
        return taken

    async def _more(self) -> bool:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT):
            try:
                data = await loop.sock_recv(self.sock, 65536)
            except ConnectionResetError:
                return False
        self.buffer += data
        return bool(data)


async def send_and_reset(url: str, data: bytes, *, times: int, turns: int) -> None:
    """Connections that send the bytes and reset after some turns of the loop."""
    for _ in range(times):
        raw = await Raw.open(url)
        await raw.send(data)
        for _ in range(turns):
            await asyncio.sleep(0)
        raw.reset()


class Streams:
    """The same over asyncio's streams, so that it works over TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *segments: bytes) -> None:
        """Send each in its own segment, as far as the kernel allows."""
        for segment in segments:
            self.writer.write(segment)
            await self.writer.drain()
            await asyncio.sleep(0.01)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and including the mark."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Everything up to the server's end."""
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.read()

    def leave(self) -> None:
        self.writer.transport.abort()
