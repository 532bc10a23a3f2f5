"""A WebSocket client for tests, in which nothing waits forever, and a context manager that runs a server::

    async with running(server) as url, connect(f"{url}/ws/chat/cars") as client:
        await client.send("hi")
        assert await client.receive() == "hi"

Works with any test runner; nothing here imports one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

import orjson
from picows import WSMsgType

from .client.wire import HandshakeRefused, Wire, dial
from .errors import FastWSError

if TYPE_CHECKING:
    from fastws import Server

__all__ = ["Client", "Closed", "Refused", "connect", "running"]

Message = str | bytes


class Refused(FastWSError):
    """The server answered the handshake with an HTTP error."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"handshake refused with status {status}: {body!r}")
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def error(self) -> dict[str, Any]:
        """The error from a fastws server: a dict with `code`, `message` and `request_id`."""
        error: dict[str, Any] = orjson.loads(self.body)["error"]
        return error


class Closed(FastWSError):
    """The connection closed, and no message is left to receive."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with code {code}, reason {reason!r}")
        self.code = code
        self.reason = reason


class Client:
    """One open connection; `connect` creates it.

    Anything that takes longer than `timeout` seconds (settable) raises a TimeoutError that says what
    was awaited.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._wire = Wire()
        self._ping_payloads = (b"%d" % number for number in itertools.count())

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the server's handshake response, case-insensitive."""
        return self._wire.transport.response.headers

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self.headers.get("Sec-WebSocket-Protocol")

    @property
    def local_address(self) -> tuple[str, int]:
        """Host and port of this end, which the server sees as `remote_address`."""
        host, port = self._wire.transport.underlying_transport.get_extra_info("sockname")[:2]
        return host, port

    async def send(self, message: Any) -> None:
        """Send `str` as text, bytes-like objects as binary, anything else as JSON text.

        Once the connection is closing, nothing is sent.
        """
        if isinstance(message, str):
            self._wire.transport.send(WSMsgType.TEXT, message)
        elif isinstance(message, bytes | bytearray | memoryview):
            self._wire.transport.send(WSMsgType.BINARY, message)
        else:
            self._wire.transport.send(WSMsgType.TEXT, orjson.dumps(message))

    async def receive(self) -> Message:
        """Returns the next message, text as `str`, binary as `bytes`; raises Closed when there are no more."""
        wire = self._wire
        await self._until(lambda: bool(wire.messages) or wire.disconnected, "a message")
        if wire.messages:
            return wire.messages.popleft()
        raise Closed(*await self.closed())

    async def receive_json(self) -> Any:
        """Returns the next message, decoded from JSON."""
        return orjson.loads(await self.receive())

    async def received(self) -> list[Message]:
        """Returns all messages that arrive before the answer to a ping sent now.

        The server sends in order, so an empty list proves that it has sent nothing.
        """
        await self.ping()
        messages = list(self._wire.messages)
        self._wire.messages.clear()
        return messages

    async def ping(self) -> float:
        """Send a ping and wait for its pong. Returns the seconds between them."""
        wire = self._wire
        payload = next(self._ping_payloads)
        started = time.perf_counter()
        wire.transport.send_ping(payload)
        await self._until(lambda: payload in wire.pongs or wire.disconnected, "a pong")
        if payload not in wire.pongs:
            raise Closed(*await self.closed())
        wire.pongs.remove(payload)
        return time.perf_counter() - started

    async def close(self, code: int | None = 1000, reason: str = "") -> tuple[int, str]:
        """Send a close frame (empty for `code=None`). Returns the server's code and reason."""
        self._wire.send_close(code, reason)
        return await self.closed()

    async def closed(self) -> tuple[int, str]:
        """Wait until the server has closed the connection. Returns its code and reason.

        The code is 1005 if its close frame had none, and 1006 if no close frame came. Raises
        picows.WSProtocolError if the server violated RFC 6455.
        """
        wire = self._wire
        await self._until(lambda: wire.disconnected, "the connection to close")
        await wire.transport.wait_disconnected()
        return wire.close_received

    def abort(self) -> None:
        """Drop the connection without a close frame."""
        self._wire.transport.disconnect(graceful=False)

    async def _until(self, reached: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                while not reached():
                    await self._wire.change()
        except TimeoutError:
            raise TimeoutError(f"waited {self.timeout} s for {what}") from None


@asynccontextmanager
async def connect(
    url: str,
    *,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    ssl: SSLContext | None = None,
    max_message_size: int = 64 * 1024 * 1024,
    timeout: float = 5.0,
) -> AsyncIterator[Client]:
    """Open a WebSocket to `url`, and close it at the end of the block.

    Raises Refused if the server answers with an HTTP error. `max_message_size` is in bytes,
    `timeout` in seconds.
    """
    extra = list(headers.items() if isinstance(headers, Mapping) else headers)
    if subprotocols:
        extra.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if origin is not None:
        extra.append(("Origin", origin))
    client = Client(timeout)
    try:
        await dial(client._wire, url, headers=extra, ssl=ssl, max_message_size=max_message_size, timeout=timeout)
    except HandshakeRefused as refused:
        raise Refused(refused.status, refused.headers, refused.body) from None
    try:
        yield client
        await client.close()
    finally:
        client.abort()


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[str]:
    """Start `server`, yield its base URL (such as `ws://127.0.0.1:4012`), and stop it at the end of the block."""
    async with server:
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
        scheme = "ws" if server.options.ssl is None else "wss"
        yield (f"{scheme}://[{host}]:{server.port}" if ":" in host else f"{scheme}://{host}:{server.port}")
