"""A WebSocket by picows: what it receives, for whoever waits. `fastws.testing` and the client are built on it."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from ssl import SSLContext

from picows import WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from ..errors import FastWSError

__all__ = ["HandshakeRefused", "Wire", "dial"]

Message = str | bytes


class HandshakeRefused(FastWSError):
    """The server answered the handshake with an HTTP error."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"handshake refused with status {status}: {body!r}")
        self.status = status
        self.headers = headers
        self.body = body


class Wire(WSListener):
    """What picows calls: gathers messages, pongs and the close frame."""

    def __init__(self) -> None:
        self.transport: WSTransport
        self.messages: deque[Message] = deque()
        self.pongs: set[bytes] = set()
        self.close_received = (1006, "")
        self.close_sent = False
        self.disconnected = False
        self._fragments: list[bytes] = []
        self._fragments_are_text = False
        self._waiters: list[asyncio.Future[None]] = []

    async def change(self) -> None:
        """Wait until anything has come: a frame of whatever kind, or the end."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def send_close(self, code: int | None, reason: str) -> None:
        """Send a close frame, if none was sent; empty for None."""
        if self.close_sent:
            return
        self.close_sent = True
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        self.transport.send(WSMsgType.CLOSE, payload)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PONG:
            self.pongs.add(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self._on_close_frame(frame.get_payload_as_bytes())
        elif frame.msg_type != WSMsgType.PING:
            self._on_data_frame(frame)
        self._changed()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.disconnected = True
        self._changed()

    def _on_data_frame(self, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.CONTINUATION:
            self._fragments_are_text = frame.msg_type == WSMsgType.TEXT
        self._fragments.append(frame.get_payload_as_bytes())
        if frame.fin:
            payload = b"".join(self._fragments)
            self._fragments.clear()
            self.messages.append(payload.decode() if self._fragments_are_text else payload)

    def _on_close_frame(self, payload: bytes) -> None:
        if payload:
            (code,) = struct.unpack("!H", payload[:2])
            self.close_received = (code, payload[2:].decode())
            self.send_close(code, "")
        else:
            self.close_received = (1005, "")
            self.send_close(None, "")

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


async def dial(
    wire: Wire,
    url: str,
    *,
    headers: Sequence[tuple[str, str]],
    ssl: SSLContext | None,
    max_message_size: int,
    timeout: float,
) -> None:
    """Shake hands; raises HandshakeRefused where the server answers with an HTTP error, OSError without an answer."""
    try:
        await ws_connect(
            lambda: wire,
            url,
            ssl_context=ssl,
            websocket_handshake_timeout=timeout,
            max_frame_size=max_message_size,
            extra_headers=headers,
            use_aiofastnet=False,
        )
    except WSHandshakeError as error:
        if error.response is None or error.response.status == 101:
            raise
        raise HandshakeRefused(int(error.response.status), error.response.headers, error.raw_body or b"") from None
    if not hasattr(wire, "transport"):  # picows does not say so
        raise ConnectionResetError(f"{url}: the connection ended before the handshake was answered")
