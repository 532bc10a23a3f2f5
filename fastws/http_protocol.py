"""uvicorn's HTTP protocol within the server's limits: size and time of each head, silence, order of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ._core import Headers, is_upgrade
from .answers import Answer
from .errors import FastWSError
from .proxies import Proxies
from .turns import Turns

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from .config import Options
    from .proxies import Peer

__all__ = ["HTTPProtocol", "Terms"]

PIECE_BYTES = 4 * 1024  # parsed at once; all requests in one piece are queued
MAX_UNREAD_BYTES = 64 * 1024  # after an unanswered request; past this, reading pauses
CHECKS_PER_LIMIT = 4  # of what the peer owes, within each time limit

NOT_A_REQUEST = "this is not an HTTP/1.1 request"

Fields: TypeAlias = list[tuple[bytes, bytes]]
AtOnce: TypeAlias = Callable[[bytes, bytes, Fields, tuple[str, int] | None], Callable[[bytes], Answer] | None]


@dataclass(frozen=True)
class Terms:
    """What all connections of one application have in common.

    ``refusal`` returns the whole answer to a peer (host and port, or None) that is refused with a status and a
    sentence. ``websocket`` returns the protocol for an upgrade, given the peer; without it, upgrades go to the
    application. ``at_once`` returns what answers a request whose body comes together with its head, given the method,
    the target, the header fields and the peer; None leaves the request to the application. ``extensions`` are those of
    each request's scope.
    """

    options: Options
    refusal: Callable[[tuple[str, int] | None, int, str], bytes]
    websocket: Callable[[Peer | None], Any] | None
    at_once: AtOnce | None = None
    proxies: Proxies = field(default_factory=lambda: Proxies(()))
    extensions: Mapping[str, Any] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)


class Part(Enum):
    """The position of the parser in the peer's input."""

    BETWEEN = 0
    HEAD = 1
    BODY = 2  # and its trailers


class Stop(FastWSError):
    """Stops the parser from within, once the next step is decided."""


class Flow(FlowControl):
    """Flow control in which reading stays paused while held, whatever a request's handler asks for."""

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

    A peer has `handshake_timeout` before and for each head, and `idle_timeout` between signs of progress while it sends
    a body or reads an answer; while the application works there is no limit. Invalid requests and upgrades wait until
    the requests before them have been answered.
    """

    flow: Flow

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        terms: Terms,
        release: Callable[[], None],
        peer: Peer | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._terms = terms
        self._options = terms.options
        self._release: Callable[[], None] | None = release
        self._peer = peer
        self._from: tuple[tuple[str, int] | None, Literal["http", "https"] | None] = None, None  # of the peer itself
        self._piece = min(PIECE_BYTES, self._options.max_header_size)
        self._part = Part.BETWEEN
        self._unread = bytearray()  # received but not yet parsed
        self._fed_bytes = 0  # bytes parsed since the parser made progress
        self._has_progress = False
        self._is_asking = False  # whether the request asks for a WebSocket
        self._at_once: Callable[[bytes], Answer] | None = None  # answers the request being parsed
        self._body: list[bytes] = []  # of that request
        self._current: RequestResponseCycle | None = None  # the request being answered
        self._ending: Callable[[], None] | None = None  # what ends HTTP here, after all pending answers
        self._is_lingering = False  # refused: further input is dropped
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._turn_began = 0.0  # when the current wait for a head, the head, or the lingering began
        self._heard_at = 0.0  # when input last came, or the peer owed nothing
        self._unsent_bytes = 0  # bytes of answers at the last check
        self._taken_at = 0.0  # when the peer last read some of them

    # -- calls from asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._peer is not None:
            self.client = self._peer.address if self._peer.address[0] else None
        self._from = self.client, self.scheme
        self.flow = Flow(transport)
        self._begin_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._current is not None and not self._current.response_complete:
            self._disconnect(self._current)
        self._ending = None
        self._unread.clear()
        self._leave()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if not self._is_lingering:
            self._unread += data
            self._terms.turns.take(self)
            if len(self._unread) > MAX_UNREAD_BYTES:  # it may have to wait for its turn
                self.flow.hold()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taken_at = self.loop.time()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._check_within(self._options.idle_timeout / CHECKS_PER_LIMIT)

    # -- calls from the server

    def shutdown(self) -> None:
        """Close once all requests so far are answered."""
        if self._is_answering:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def parse(self) -> None:
        """Parse the unparsed input, unless it is no longer HTTP."""
        if self.parser is not None and not self._is_lingering:
            self._parse_unread()

    def release(self) -> None:
        """The connection is no longer HTTP, or never opened. A second call does nothing."""
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
        """Whether unread input has to wait for answers; after a request that closes the connection, forever."""
        closes = self.cycle is not None and not self.cycle.keep_alive and not self.cycle.more_body
        return self._ending is not None or bool(self.pipeline) or closes

    def _parse_unread(self) -> None:
        """Parse as far as possible, then do what ends HTTP here if its turn has come."""
        while self._unread and not self._is_waiting and not self.transport.is_closing():
            piece = bytes(self._unread[: self._piece])
            del self._unread[: self._piece]
            self._feed(piece)
        if self.transport.is_closing():
            self._unread.clear()
        elif self._ending is not None and not self._is_answering:
            last, self._ending = self._ending, None
            last()
        elif len(self._unread) > MAX_UNREAD_BYTES:
            self.flow.hold()
        else:
            self.flow.release()
            if self.pipeline and len(self.cycle.body) <= HIGH_WATER_LIMIT:
                self.flow.resume_reading()  # uvicorn has paused it, and would not notice that the peer leaves

    def _feed(self, piece: bytes) -> None:
        self._has_progress = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._unread[:0] = piece[upgrade.args[0] :]  # frames; for any other protocol, HTTP continues
        except httptools.HttpParserError:
            self._leave_to_application()
            if self._ending is None:
                self._fail(400, NOT_A_REQUEST)
            return
        self._leave_to_application()
        self._fed_bytes = 0 if self._has_progress else self._fed_bytes + len(piece)
        most = self._options.max_header_size
        if self._fed_bytes <= most:
            return
        if self._part is Part.BODY:
            self._fail(400, f"chunk extensions or trailers exceed {most} bytes")
        else:
            self._fail(431, f"the request head exceeds {most} bytes")

    def on_message_begin(self) -> None:
        self._has_progress = True
        self._part = Part.HEAD
        self._turn_began = self.loop.time()
        self.client, self.scheme = self._from
        super().on_message_begin()
        if self._terms.extensions:
            self.scope["extensions"] = dict(self._terms.extensions)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is Part.HEAD:  # trailers could be mistaken for header fields
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_progress = True
        if self._peer is not None and self._peer.is_trusted:
            self._meet_client(self._peer)
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
            self._ending = partial(self._upgrade, head)
            if not self.parser.should_upgrade():
                raise Stop  # not a valid handshake: it will be refused, and what follows does not matter
        self._part = Part.BODY

    def _meet_client(self, proxy: Peer) -> None:
        """Note who asks, as a trusted proxy says: each request on its connection may be another client's."""
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers])
        host, port, is_secure = self._terms.proxies.origin(headers, proxy.address, self.scheme == "https")
        self.client, self.scheme = (host, port) if host else None, "https" if is_secure else "http"
        self.scope["client"], self.scope["scheme"] = self.client, self.scheme

    def _objection(self, head: bytes) -> tuple[int, str] | None:
        """Returns status and sentence for a head to refuse, None for a valid one."""
        if len(head) > self._options.max_header_size:
            return 431, f"the request head exceeds {self._options.max_header_size} bytes"
        if self._is_asking:
            return None  # the WebSocket protocol checks it again
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            return 400, "only HTTP/1.1 is supported"
        if self.parser.should_upgrade() and self._has_body():
            return 400, "a request for an upgrade must not have a body"  # the parser cannot read it
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
        """Returns the head as it came, except for blanks; it is never longer than the original."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version), *map(b":".join, self.headers), b"", b""]
        return b"\r\n".join(lines)

    def _has_upgrade(self) -> bool:
        """Returns whether the request asks for a WebSocket, by the same rule as on a new connection."""
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
        """Returns what answers this request without the application, whose task would cost more than the answer."""
        at_once = self._terms.at_once
        is_plain = self.parser.should_keep_alive() and not self.expect_100_continue and not self.access_log
        if at_once is None or not is_plain or self._is_answering or self.flow.write_paused:
            return None
        return at_once(self.parser.get_method(), self.url, self.headers, self.client)

    def _leave_to_application(self) -> None:
        """The body is not complete: the request goes to the application like any other."""
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
        self._terms.turns.charge()
        self._check_within(self._options.idle_timeout / CHECKS_PER_LIMIT)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._check_within(self._options.idle_timeout / CHECKS_PER_LIMIT)
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._begin_turn()
        self.loop.call_soon(self.parse)  # not on the stack of the application that sends the answer

    def _upgrade(self, head: bytes) -> None:
        """Hand the connection and its unparsed input over to a protocol for WebSockets."""
        assert self._terms.websocket is not None
        self.connections.discard(self)
        self._leave()
        self.flow.release()
        self.flow.resume_reading()
        protocol = self._terms.websocket(self._peer)
        protocol.connection_made(self.transport)
        if self.flow.write_paused:
            protocol.pause_writing()  # it will be told to resume, so it has to know of the pause
        protocol.data_received(head + self._unread)
        self._unread.clear()
        self.parser = None  # type: ignore[assignment]
        self.transport.set_protocol(protocol)

    def _fail(self, status: int, message: str) -> None:
        """Refuse invalid input. If it is the body of a request whose answer has begun, just close."""
        if self._part is Part.BODY and self.pipeline:
            self.pipeline.popleft()  # that request has not reached the application
        elif self._part is Part.BODY and self.cycle.response_started:
            self.transport.close()
            return
        elif self._part is Part.BODY:
            self._disconnect(self.cycle)
            self._current = None
        self._ending = partial(self._refuse, status, message)

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle) -> None:
        """Tell the application that nobody is waiting for its answer."""
        cycle.disconnected = True
        cycle.message_event.set()

    def _refuse(self, status: int, message: str) -> None:
        """Answer, and send no more. Further input is read and dropped: a reset could destroy the answer on its way."""
        self._is_lingering = True
        self._unread.clear()
        self.flow.release()
        self.flow.resume_reading()
        self.transport.write(self._terms.refusal(self.client, status, message))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS sends close_notify first, and keeps reading meanwhile
        self._turn_began = self.loop.time()
        self._check_within(self._options.close_timeout)

    # -- time

    def _begin_turn(self) -> None:
        """From now on the peer owes a head."""
        self._turn_began = self._heard_at = self.loop.time()
        self._check_within(self._options.handshake_timeout)

    def _check_within(self, seconds: float) -> None:
        """Have `_check_time` called within ``seconds``; 0: never."""
        at = self.loop.time() + seconds
        if not seconds or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self.loop.call_later(seconds, self._check_time), at

    def _check_time(self) -> None:
        """Act if the peer's time is up; otherwise check again later."""
        self._timer = None
        since, limit, end = self._debt()
        left = since + limit - self.loop.time()
        if left > 0:
            self._check_within(min(left, limit / CHECKS_PER_LIMIT))
        elif limit:
            end()

    def _debt(self) -> tuple[float, float, Callable[[], None]]:
        """Returns since when the peer owes something, for how many seconds it may, and what happens after that."""
        now, idle = self.loop.time(), self._options.idle_timeout
        if self._is_lingering:
            return self._turn_began, self._options.close_timeout, self.transport.abort
        if self.transport.is_closing() or self.flow.write_paused:
            unsent = self.transport.get_write_buffer_size()
            if unsent != self._unsent_bytes:
                self._unsent_bytes, self._taken_at = unsent, now
            return self._taken_at, idle, partial(self._drop, "it does not read the response")
        if not self._is_answering:
            return self._turn_began, self._options.handshake_timeout, self._end_turn
        cycle = self.cycle
        if not cycle.more_body or cycle.waiting_for_100_continue or self.flow.read_paused:
            self._heard_at = now  # it owes nothing: the application is working
        return self._heard_at, idle, partial(self._drop, "its request body has stalled")

    def _end_turn(self) -> None:
        if self._part is Part.HEAD:
            self._refuse(408, "no complete request within handshake_timeout")
        else:
            self.transport.close()
            self._check_within(self._options.idle_timeout / CHECKS_PER_LIMIT)

    def _drop(self, reason: str) -> None:
        self.logger.info("dropping an HTTP connection: %s", reason, extra={"remote_address": self.client})
        self.transport.abort()
