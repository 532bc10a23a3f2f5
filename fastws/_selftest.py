"""What `fastws.selftest` tries: each part of the engine that a build can get wrong, over 127.0.0.1."""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TypeAlias

import uvloop

from ._core import WebSocket, has_epoll
from .errors import FastWSError
from .listener import Listener
from .server import Server
from .testing import connect, running

__all__ = ["run"]

Parts: TypeAlias = dict[str, Callable[[], Awaitable[None]]]

TIMEOUT = 30.0  # seconds for each answer; a machine that starts up may be busy
MEMBERS = 128 if has_epoll else 8  # 128 is where two threads share the writing; only epoll has them
LARGE = 1 << 20  # bytes; more than a socket takes at once
END_OF_BLOCK = b"\x00\x00\xff\xff"  # left off each compressed message (RFC 7692 7.2.1)


class Echo(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> str | bytes:
        return message


def run() -> str:
    """Returns what works, in one sentence; raises FastWSError naming the first part that does not."""
    parts: Parts = {"echo": _echo, f"broadcast to {MEMBERS}": _broadcast, "compression": _compression}
    if _can_do_without_certificate():
        parts["TLS"] = _tls
    begin = time.perf_counter()
    with ThreadPoolExecutor(1) as thread:  # since this one may have a loop that runs, as in a notebook
        thread.submit(_on_a_loop, parts).result()
    return f"{', '.join(parts)}: all right, in {time.perf_counter() - begin:.2f} seconds"


def _on_a_loop(parts: Parts) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_in_turn(parts))


async def _in_turn(parts: Parts) -> None:
    for name, part in parts.items():
        try:
            async with asyncio.timeout(2 * TIMEOUT):
                await part()
        except Exception as error:
            raise FastWSError(f"selftest: {name}: {error or type(error).__name__}") from error


def _same(got: object, expected: object) -> None:
    if got != expected:
        raise FastWSError(f"{_shown(got)} came, not {_shown(expected)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}... ({len(text):,} characters)"


async def _echo() -> None:
    await _echoed(None, None)


async def _tls() -> None:
    await _echoed(_without_certificate(ssl.PROTOCOL_TLS_SERVER), _without_certificate(ssl.PROTOCOL_TLS_CLIENT))


async def _echoed(ours: ssl.SSLContext | None, theirs: ssl.SSLContext | None) -> None:
    server = Server(host="127.0.0.1", port=0, ssl=ours)
    server.endpoint("/echo", Echo())
    async with running(server) as url, connect(f"{url}/echo", ssl=theirs, timeout=TIMEOUT) as client:
        for message in ("ünïcode", b"\x00\xff", "x" * LARGE):
            await client.send(message)
            _same(await client.receive(), message)
        _same(await client.close(1000), (1000, ""))


async def _broadcast() -> None:
    server = Server(host="127.0.0.1", port=0, flush_threads=2)
    manager = server.endpoint("/rooms/{channel}")
    async with running(server) as url, AsyncExitStack() as stack:
        entered = (stack.enter_async_context(connect(f"{url}/rooms/a", timeout=TIMEOUT)) for _ in range(MEMBERS))
        clients = await asyncio.gather(*entered)
        for message in ("first", "second"):
            _same(manager.broadcast("a", message), MEMBERS)
            _same({await client.receive() for client in clients}, {message})


async def _compression() -> None:
    """Without a client that compresses among the dependencies: by hand."""
    server = Server(host="127.0.0.1", port=0, compression="shared")
    server.endpoint("/echo", Echo())
    async with running(server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(
                b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if b"permessage-deflate" not in head:
                raise FastWSError(f"it is not agreed on: {_shown(head)}")
            message = b"compressed, " * 1000
            writer.write(_deflated_frame(message))
            first, length = await reader.readexactly(2)
            _same(first, 0xC1)  # the end of a compressed text
            _same(length < 126, True)
            _same(_inflated(await reader.readexactly(length)), message)
        finally:
            writer.close()


def _deflated_frame(message: bytes) -> bytes:
    """A text of less than 126 compressed bytes, as a client sends it."""
    deflater = zlib.compressobj(wbits=-15)
    data = (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(END_OF_BLOCK)
    mask = bytes(4)
    return struct.pack("!BB", 0xC1, 0x80 | len(data)) + mask + data


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + END_OF_BLOCK)


def _without_certificate(protocol: int) -> ssl.SSLContext:
    """Returns a context for one end of a connection within this process, so that no key has to lie in the package."""
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later ones always have a certificate
    context.set_ciphers("AECDH:@SECLEVEL=0")
    return context


def _can_do_without_certificate() -> bool:
    """Whether the TLS library has such ciphers; some are built without."""
    try:
        _without_certificate(ssl.PROTOCOL_TLS_SERVER)
    except ssl.SSLError:
        return False
    return True
