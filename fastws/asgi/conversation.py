"""One WebSocket of an ASGI application: what its `receive` and `send` do (ASGI 3.0, WebSocket 2.4)."""

import asyncio
from collections import deque
from collections.abc import Mapping
from enum import Enum
from time import monotonic
from typing import Any, TypeAlias

from .._core import Request, WebSocket, field_lines
from ..answers import Answer, Answered
from ..errors import FastWSError, Reject
from ..manager import ConnectionManager
from .rooms import Channels

__all__ = ["ClientDisconnected", "Conversation", "Taken"]

Message: TypeAlias = Mapping[str, Any]

MOST_PENDING_BYTES = 64 * 1024  # for one connection; with more, `send` waits
MOST_READ_AHEAD = 1  # messages that wait here; more of them wait in the engine, within its limits
TURN_SECONDS = 0.001  # for which messages that are there are received before others have a turn
ABNORMAL = 1006  # RFC 6455 7.1.5: no Close came

# What an application says otherwise, or that only the handshake itself may say.
RESERVED_FIELDS = {
    "connection",
    "content-length",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "transfer-encoding",
    "upgrade",
}
FRAMING_FIELDS = {"connection", "content-length", "transfer-encoding"}  # the server's in an HTTP answer


class ClientDisconnected(FastWSError, OSError):
    """The client is gone, or is being told to go: nothing can be sent to it."""


class Taken(asyncio.Future[None]):
    """Ends when the application has taken a message.

    Where the engine itself waits for that, which `is_direct` says, it gets to know at once: what has come by then is
    handled in this turn, and what that sends goes out together.
    """

    is_direct = False


class Stage(Enum):
    """How far a conversation is. While it is ACCEPTING, the 101 is about to be sent."""

    ASKED = "asked"
    ACCEPTING = "accepting"
    DENYING = "denying"
    OPEN = "open"
    ENDED = "ended"  # by the application
    GONE = "gone"  # the client


class Conversation:
    """The server's side of one WebSocket that the application has.

    `decision` ends when the application has accepted; it raises what the handshake is answered with instead.
    """

    def __init__(self, manager: ConnectionManager, request: Request) -> None:
        loop = asyncio.get_running_loop()
        self.manager = manager
        self.request = request
        self.ws: WebSocket | None = None  # from its 101 on
        self.decision: asyncio.Future[None] = loop.create_future()
        self._stage = Stage.ASKED
        self._settled = asyncio.Event()  # the accepted handshake has succeeded, or has not
        self._denial: tuple[int, dict[str, list[str]], bytearray]
        self._is_connect_told = False
        self._messages: deque[str | bytes] = deque()
        self._taken: Taken | None = None  # the engine waits until the application has received
        self._turn_ends = 0.0
        self._end: Message | None = None
        self._receivers: list[asyncio.Future[None]] = []
        self._senders: list[asyncio.Future[None]] = []

    # -- calls from the listener

    def opened(self, ws: WebSocket) -> None:
        """The handshake has succeeded."""
        self.ws = ws
        if self._stage is Stage.ACCEPTING:
            self._stage = Stage.OPEN
        else:  # the application did not wait for that
            ws.close(1011, "the application returned")
        self._settled.set()

    def offer(self, message: str | bytes) -> Taken | None:
        """A message arrived. Returns what to wait for before the next one; None: it may come."""
        self._messages.append(message)
        _wake(self._receivers)
        if len(self._messages) <= MOST_READ_AHEAD:
            return None
        self._taken = Taken(loop=asyncio.get_running_loop())
        return self._taken

    def drained(self) -> None:
        """All that was pending is written."""
        _wake(self._senders)

    def lost(self, code: int = ABNORMAL, reason: str = "") -> None:
        """The connection is over, or the handshake has failed."""
        if self._stage is not Stage.ENDED:
            self._stage = Stage.GONE
        self._disconnect(code, reason)
        self._settled.set()
        _wake(self._senders)

    def returned(self, error: BaseException | None) -> None:
        """The application has returned, or raised."""
        ws = self.ws
        if ws is None:
            if not self.decision.done():
                self.decision.set_exception(error or RuntimeError("the application returned without an answer"))
            self._stage = Stage.ENDED
        elif error is not None and not isinstance(error, ClientDisconnected):
            self.manager.life.handler_failed(ws, error, "asgi")
        elif self._stage is Stage.OPEN:
            ws.close(1011, "the application returned")
            self._stage = Stage.ENDED
        self._take()

    def _take(self) -> None:
        """The engine may go on, if it waits: that leads back here, to `offer`."""
        taken, self._taken = self._taken, None
        if taken is None:
            return
        if not taken.is_direct:
            taken.set_result(None)
        elif self.ws is not None:
            self.ws._take_result(None)

    # -- what the application calls

    async def receive(self) -> Message:
        """Returns the next event. The last one is the disconnect, however often it is asked for."""
        if not self._is_connect_told:
            self._is_connect_told = True
            return {"type": "websocket.connect"}
        if self._messages and monotonic() > self._turn_ends:
            await asyncio.sleep(0)
            self._turn_ends = monotonic() + TURN_SECONDS
        while not self._messages:
            if self._end is not None:
                return self._end
            await _wait_in(self._receivers)
            self._turn_ends = monotonic() + TURN_SECONDS
        message = self._messages.popleft()
        self._take()
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    async def send(self, message: Message) -> None:
        """Do what a message says.

        Raises ClientDisconnected (an OSError) once the client is gone, RuntimeError for a message whose time is not
        now, TypeError and ValueError for one that is not in order.
        """
        kind = message["type"]
        if self._stage is Stage.ACCEPTING:
            await self._settled.wait()
        if self._stage is Stage.OPEN:
            await self._send_open(kind, message)
        elif self._stage is Stage.ASKED:
            await self._answer(kind, message)
        elif self._stage is Stage.DENYING:
            self._continue_denial(kind, message)
        elif self._stage is Stage.GONE:
            raise ClientDisconnected("the client has disconnected")
        else:
            raise RuntimeError(
                f"Unexpected ASGI message {kind!r}, after sending 'websocket.close' or response already completed."
            )

    # -- the handshake

    async def _answer(self, kind: str, message: Message) -> None:
        if kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.close":
            self._decide(Reject(403, "refused by the application"))
        elif kind == "websocket.http.response.start":
            status = message["status"]
            if not isinstance(status, int) or not 200 <= status <= 599:
                raise RuntimeError(f"Invalid HTTP status code {status!r} in response.")
            self._denial = status, _without(FRAMING_FIELDS, _fields_of(message)), bytearray()
            self._stage = Stage.DENYING
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start', "
                f"but got {kind!r}."
            )

    async def _accept(self, message: Message) -> None:
        fields = _fields_of(message)
        if reserved := RESERVED_FIELDS & fields.keys():
            raise ValueError(f"header {min(reserved)!r} cannot be set: it is the server's, or has a key of its own")
        subprotocol = message.get("subprotocol")
        if subprotocol is not None:
            if subprotocol not in self.request.subprotocols:
                raise ValueError(f"subprotocol {subprotocol!r} was not offered: choose one of scope['subprotocols']")
            self.request.subprotocol = subprotocol
        self.request.response_headers = dict(fields)
        self._stage = Stage.ACCEPTING
        self.decision.set_result(None)
        await self._settled.wait()
        if self.ws is None:
            raise ClientDisconnected("the client has disconnected, or the server is full")

    def _continue_denial(self, kind: str, message: Message) -> None:
        if kind != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body', but got {kind!r}.")
        status, fields, body = self._denial
        body += message.get("body", b"")
        most = self.manager.options.max_backlog
        if len(body) > most:
            raise ValueError(f"the answer to this handshake has over {most:,} bytes, which is max_backlog")
        if not message.get("more_body", False):
            self._decide(Answered(Answer(status, bytes(body), _titled(fields))))

    def _decide(self, refusal: Exception) -> None:
        self._stage = Stage.ENDED
        self._disconnect(ABNORMAL, "")
        self.decision.set_exception(refusal)

    def _disconnect(self, code: int, reason: str) -> None:
        self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        _wake(self._receivers)

    # -- the open connection

    async def _send_open(self, kind: str, message: Message) -> None:
        assert self.ws is not None
        if kind == "websocket.send":
            data = _data_of(message)
            if self.ws.pending > MOST_PENDING_BYTES:
                await self._room(self.ws)
            if not self.ws.send(data) and not self.ws.is_open:
                raise ClientDisconnected("the client has disconnected")
        elif kind == "websocket.close":
            code, reason = message.get("code"), message.get("reason")
            if not self.ws.is_open:
                raise ClientDisconnected("the client has disconnected")
            self.ws.close(1000 if code is None else code, reason or "")
            self._stage = Stage.ENDED
        elif kind == "websocket.subscribe":
            topic = _topic_of(message)
            Channels(self.manager, self).subscribe(topic)
            listening = self.manager.listening(topic)
            if listening is not None:
                await listening
        elif kind == "websocket.unsubscribe":
            Channels(self.manager, self).unsubscribe(_topic_of(message))
        elif kind == "websocket.publish":
            to, users, exclude = message.get("to"), message.get("users"), message.get("exclude")
            topic, data = _topic_of(message), _data_of(message)
            Channels(self.manager, self).broadcast(topic, data, to=to, users=users, exclude=exclude)
        else:
            raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got {kind!r}.")

    async def _room(self, ws: WebSocket) -> None:
        """Wait until what is pending is written, which the application feels, too."""
        while ws.pending > MOST_PENDING_BYTES and ws.is_open:
            ws._notify_when_drained()
            await _wait_in(self._senders)


# -- waiting: whoever is woken looks for itself, so that nothing is lost where somebody stops waiting


async def _wait_in(waiting: "list[asyncio.Future[None]]") -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting.append(future)
    try:
        await future
    finally:
        waiting.remove(future)


def _wake(waiting: "list[asyncio.Future[None]]") -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


# -- what messages hold


def _data_of(message: Message) -> Any:
    """Returns what to send; as in uvicorn, bytes take precedence over text."""
    data = message.get("bytes")
    if data is not None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"'bytes' of ASGI message {message['type']!r} must be bytes, not {type(data).__name__}")
        return data
    data = message.get("text")
    if not isinstance(data, str):
        what = "it has neither 'text' nor 'bytes'" if data is None else f"'text' is {type(data).__name__}, not str"
        raise TypeError(f"ASGI message {message['type']!r} cannot be sent: {what}")
    return data


def _topic_of(message: Message) -> str:
    topic = message["topic"]
    if not isinstance(topic, str):
        raise TypeError(f"'topic' of ASGI message {message['type']!r} must be a str, not {type(topic).__name__}")
    return topic


def _fields_of(message: Message) -> dict[str, list[str]]:
    """Returns the header fields by name in lower case; raises ValueError for what cannot be sent."""
    fields: dict[str, list[str]] = {}
    for name, value in message.get("headers") or ():
        fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    field_lines(fields)
    return fields


def _without(names: set[str], fields: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in fields.items() if name not in names}


def _titled(fields: dict[str, list[str]]) -> dict[str, list[str]]:
    """As the server writes its own, which they replace."""
    return {name.title(): values for name, values in fields.items()}
