"""Uvicorn's HTTP protocol, held to the server's limits: the size and the time of each head, silence, order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ._core import Headers, is_upgrade
from .answers import Answer
from .errors import FastWSError

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from .config import Options

__all__ = ["HTTPProtocol", "Terms"]

TURN = 0.002  # seconds of requests until everything else on the loop has a turn
PIECE = 4 * 1024  # bytes parsed at once: requests in one piece are all queued
BACKLOG = 64 * 1024  # bytes kept of what follows a request that is not answered yet; past it the peer is not read
LOOKS = 4  # at what a peer owes, before its time is up

NO_REQUEST = "this is not an HTTP/1.1 request"

Fields: TypeAlias = list[tuple[bytes, bytes]]
AtOnce: TypeAlias = Callable[[bytes, bytes, Fields, tuple[str, int] | None], Callable[[bytes], Answer] | None]


@dataclass(frozen=True)
class Terms:
    """What every connection of one application has in common.

    ``refusal`` makes the whole answer to a peer (host and port, or None) that is refused with a status and a sentence;
    ``websocket`` makes the protocol for an upgrade, and without it an upgrade is the application's. ``at_once`` is
    asked for what answers a request whose body is there with its head, from the method, the target, the header fields
    and the peer; None leaves it to the application.
    """

    options: Options
    refusal: Callable[[tuple[str, int] | None, int, str], bytes]
    websocket: Callable[[], Any] | None
    at_once: AtOnce | None = None
    turns: Turns = field(default_factory=lambda: Turns())


class Turns:
    """Shares the loop between all connections of an application and whatever else runs there.

    However many requests come at once, they are looked at for a few milliseconds; the others wait, in their order.
    """

    def __init__(self) -> None:
        self._waiting: dict[HTTPProtocol, None] = {}
        self._begin: float | None = None  # of the turn that it is

    def take(self, protocol: HTTPProtocol) -> None:
        """Have a connection look at what came, now or later."""
        if self._begin is None:
            self._begin = time.perf_counter()
            protocol.loop.call_soon(self._next)
        elif self._waiting or time.perf_counter() - self._begin > TURN:
            self._waiting[protocol] = None
            return
        protocol.look_at_input()

    def _next(self) -> None:
        """Another turn: everything else has had its own."""
        waiting, self._waiting, self._begin = self._waiting, {}, None
        for protocol in waiting:
            self.take(protocol)


class Part(Enum):
    """Where in the peer's input the parser is."""

    BETWEEN = 0
    HEAD = 1
    BODY = 2  # with what follows it: trailers


class Stop(FastWSError):
    """Stops the parser from within: what comes next was decided."""


class Flow(FlowControl):
    """Reading that stays paused while it is held, whatever a request's handler asks for."""

    is_held = False

    def hold(self) -> None:
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        if self.is_held:
            self.is_held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class HTTPProtocol(HttpToolsProtocol):
    """One connection. ``release`` is called once, when it is gone or has become a WebSocket.

    A peer has `handshake_timeout` for each head and before each, `idle_timeout` for a sign that it sends the body or
    reads the answer that it is to; while the application works there is no limit. What cannot be a request, and an
    upgrade, wait until the requests before them were answered.
    """

    flow: Flow

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        terms: Terms,
        release: Callable[[], None],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._terms = terms
        self._options = terms.options
        self._release: Callable[[], None] | None = release
        self._piece = min(PIECE, self._options.max_header_size)
        self._part = Part.BETWEEN
        self._unread = bytearray()  # received, and not parsed yet
        self._fed = 0  # bytes parsed since something came of it
        self._has_progress = False
        self._is_asking = False  # for a WebSocket
        self._at_once: Callable[[bytes], Answer] | None = None  # what answers the request that is being parsed
        self._body: list[bytes] = []  # of that request
        self._current: RequestResponseCycle | None = None  # the request that is being answered
        self._last: Callable[[], None] | None = None  # what ends HTTP here, once all before it is answered
        self._is_lingering = False  # refused; what still comes is dropped
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._turn = 0.0  # since when the peer may send a head, or sends one, or lingers
        self._heard = 0.0  # when something came, or nothing was owed
        self._unsent = 0  # bytes of answers when last looked at
        self._taken = 0.0  # when the peer had last taken some

    # -- of asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._begin_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._current is not None and not self._current.response_complete:
            self._disconnect(self._current)
        self._last = None
        self._unread.clear()
        self._leave()

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        if not self._is_lingering:
            self._unread += data
            self._terms.turns.take(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taken = self.loop.time()
        self._unsent = self.transport.get_write_buffer_size()
        self._look_within(self._options.idle_timeout / LOOKS)

    # -- of the server

    def shutdown(self) -> None:
        """Close once what is asked already is answered."""
        if self._is_answering:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def look_at_input(self) -> None:
        """Go on with what came and was not parsed yet."""
        if self.parser is not None and not self._is_lingering:
            self._go_on()

    def release(self) -> None:
        """The connection is not HTTP any more, or never came to be; a second time does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.release()

    # -- input

    @property
    def _is_answering(self) -> bool:
        return bool(self.pipeline) or (self._current is not None and not self._current.response_complete)

    @property
    def _is_waiting(self) -> bool:
        """Whether what is unread has to wait for answers; after a request that closes the connection, for ever."""
        closes = self.cycle is not None and not self.cycle.keep_alive and not self.cycle.more_body
        return self._last is not None or bool(self.pipeline) or closes

    def _go_on(self) -> None:
        """Parse as far as may be; then do what ends HTTP here, if its turn has come."""
        while self._unread and not self._is_waiting and not self.transport.is_closing():
            piece = bytes(self._unread[: self._piece])
            del self._unread[: self._piece]
            self._feed(piece)
        if self.transport.is_closing():
            self._unread.clear()
        elif self._last is not None and not self._is_answering:
            last, self._last = self._last, None
            last()
        elif len(self._unread) > BACKLOG:
            self.flow.hold()
        else:
            self.flow.release()
            if self.pipeline and len(self.cycle.body) <= HIGH_WATER_LIMIT:
                self.flow.resume_reading()  # uvicorn pauses it, and would not hear of a peer that goes

    def _feed(self, piece: bytes) -> None:
        self._has_progress = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._unread[:0] = piece[upgrade.args[0] :]  # frames; another protocol is not spoken, and HTTP goes on
        except httptools.HttpParserError:
            self._leave_to_application()
            if self._last is None:
                self._fail(400, NO_REQUEST)
            return
        self._leave_to_application()
        self._fed = 0 if self._has_progress else self._fed + len(piece)
        most = self._options.max_header_size
        if self._fed <= most:
            return
        if self._part is Part.BODY:
            self._fail(400, f"chunk extensions or trailers are over {most} bytes")
        else:
            self._fail(431, f"the request's head is over {most} bytes")

    def on_message_begin(self) -> None:
        self._has_progress = True
        self._part = Part.HEAD
        self._turn = self.loop.time()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is Part.HEAD:  # and no trailer, which could pass for one of the header's fields
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_progress = True
        self._is_asking = self._terms.websocket is not None and self._has_upgrade()
        head = self._head()
        objection = self._objection(head)
        if objection is not None:
            self._fail(*objection)
            raise Stop
        if not self._is_asking:
            self._at_once = self._find_at_once()
            if self._at_once is None:
                super().on_headers_complete()
        else:
            self._last = partial(self._upgrade, head)
            if not self.parser.should_upgrade():
                raise Stop  # it is not a handshake, and will be told so; what follows does not matter
        self._part = Part.BODY

    def _objection(self, head: bytes) -> tuple[int, str] | None:
        """Status and sentence for a head that is refused, and None for one that may pass."""
        if len(head) > self._options.max_header_size:
            return 431, f"the request's head is over {self._options.max_header_size} bytes"
        if self._is_asking:
            return None  # whoever takes it looks at it again
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            return 400, "HTTP/1.1 is spoken here, no other version"
        if self.parser.should_upgrade() and self._has_body():
            return 400, "a request that asks for an upgrade has no body here"  # the parser cannot read it
        return None

    def on_body(self, body: bytes) -> None:
        self._has_progress = True
        if self._at_once is None:
            super().on_body(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._has_progress = True
        self._part = Part.BETWEEN
        if self._at_once is None:
            super().on_message_complete()
        else:
            self._answer_at_once(self._at_once)

    def _head(self) -> bytes:
        """The head as it came, but for blanks; never longer than that."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version), *map(b":".join, self.headers), b"", b""]
        return b"\r\n".join(lines)

    def _has_upgrade(self) -> bool:
        """Whether it asks for a WebSocket, by the same rule as on a fresh connection."""
        fields = [("upgrade", value.decode("latin-1")) for name, value in self.headers if name == b"upgrade"]
        return bool(fields) and is_upgrade(Headers(fields))

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        )

    def _should_upgrade(self) -> bool:
        return self._is_asking

    # -- answers

    def _find_at_once(self) -> Callable[[bytes], Answer] | None:
        """What answers this request without the application, whose task costs more than what we do."""
        at_once = self._terms.at_once
        is_plain = self.parser.should_keep_alive() and not self.expect_100_continue
        if at_once is None or not is_plain or self._is_answering or self.flow.write_paused:
            return None
        return at_once(self.parser.get_method(), self.url, self.headers, self.client)

    def _leave_to_application(self) -> None:
        """Where the body is not there yet, the request is one like any other."""
        if self._at_once is not None:
            self._at_once = None
            super().on_headers_complete()
            for part in self._body:
                super().on_body(part)
            self._body.clear()

    def _answer_at_once(self, answer: Callable[[bytes], Answer]) -> None:
        body, self._at_once = b"".join(self._body), None
        self._body.clear()
        head = [b"%b: %b\r\n" % field for field in self.server_state.default_headers]
        self.transport.write(answer(body).as_response(b"".join(head)))
        self.server_state.total_requests += 1
        self._begin_turn()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        self._look_within(self._options.idle_timeout / LOOKS)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._look_within(self._options.idle_timeout / LOOKS)
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._begin_turn()
        self.loop.call_soon(self.look_at_input)  # not on the stack of the application, which sent the answer

    def _upgrade(self, head: bytes) -> None:
        """Give the connection, and all that came on it, to a protocol for WebSockets."""
        assert self._terms.websocket is not None
        self.connections.discard(self)
        self._leave()
        self.flow.release()
        self.flow.resume_reading()
        protocol = self._terms.websocket()
        protocol.connection_made(self.transport)
        if self.flow.write_paused:
            protocol.pause_writing()  # it will hear of the end of it, and has to know of the beginning
        protocol.data_received(head + self._unread)
        self._unread.clear()
        self.parser = None  # type: ignore[assignment]
        self.transport.set_protocol(protocol)

    def _fail(self, status: int, message: str) -> None:
        """Refuse what cannot be read; where that is a body whose answer has begun, all there is to do is to close."""
        if self._part is Part.BODY and self.pipeline:
            self.pipeline.popleft()  # that request, of which nobody knows yet
        elif self._part is Part.BODY and self.cycle.response_started:
            self.transport.close()
            return
        elif self._part is Part.BODY:
            self._disconnect(self.cycle)
            self._current = None
        self._last = partial(self._refuse, status, message)

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle) -> None:
        """Tell the application that nobody waits for its answer."""
        cycle.disconnected = True
        cycle.message_event.set()

    def _refuse(self, status: int, message: str) -> None:
        """Answer, and send no more. What the peer still sends is read, lest a reset takes the answer away from it."""
        self._is_lingering = True
        self._unread.clear()
        self.flow.release()
        self.flow.resume_reading()
        self.transport.write(self._terms.refusal(self.client, status, message))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS says good-bye first, and reads on meanwhile
        self._turn = self.loop.time()
        self._look_within(self._options.close_timeout)

    # -- time

    def _begin_turn(self) -> None:
        """From now on the peer owes a head."""
        self._turn = self._heard = self.loop.time()
        self._look_within(self._options.handshake_timeout)

    def _look_within(self, seconds: float) -> None:
        """Have `_look` called then, or sooner; 0: never."""
        at = self.loop.time() + seconds
        if not seconds or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self.loop.call_later(seconds, self._look), at

    def _look(self) -> None:
        """Look at what the peer owes: its time is up, or will be looked at again."""
        self._timer = None
        since, limit, end = self._debt()
        left = since + limit - self.loop.time()
        if left > 0:
            self._look_within(min(left, limit / LOOKS))
        elif limit:
            end()

    def _debt(self) -> tuple[float, float, Callable[[], None]]:
        """Since when the peer owes something, for how many seconds it may, and what happens then."""
        now, idle = self.loop.time(), self._options.idle_timeout
        if self._is_lingering:
            return self._turn, self._options.close_timeout, self.transport.abort
        if self.transport.is_closing() or self.flow.write_paused:
            unsent = self.transport.get_write_buffer_size()
            if unsent != self._unsent:
                self._unsent, self._taken = unsent, now
            return self._taken, idle, partial(self._drop, "it does not read its answer")
        if not self._is_answering:
            return self._turn, self._options.handshake_timeout, self._end_turn
        cycle = self.cycle
        if not cycle.more_body or cycle.waiting_for_100_continue or self.flow.read_paused:
            self._heard = now  # it owes nothing: the application works
        return self._heard, idle, partial(self._drop, "nothing comes of its request's body")

    def _end_turn(self) -> None:
        if self._part is Part.HEAD:
            self._refuse(408, "no complete request came within handshake_timeout")
        else:
            self.transport.close()
            self._look_within(self._options.idle_timeout / LOOKS)

    def _drop(self, reason: str) -> None:
        self.logger.info("an HTTP connection is dropped: %s", reason, extra={"remote_address": self.client})
        self.transport.abort()
