# Types of the engine. The docstrings are those of the engine, copied by `python -m tools.stub`.
# ruff: noqa: PYI021

import asyncio
from collections.abc import Hashable, Iterable, Iterator, Mapping
from socket import socket
from typing import Any, Final, NoReturn, Protocol, Self, TypeAlias, final

from typing_extensions import disjoint_base

from .errors import ProtocolError
from .manager import ConnectionManager
from .sessions import Session

has_epoll: Final[bool]
EVERYONE_KIND: Final[int]
FLUSH_BOUNDS: Final[tuple[float, ...]]
PING_BOUNDS: Final[tuple[float, ...]]
CHANNEL_KIND: Final[int]
USER_KIND: Final[int]
SESSION_KIND: Final[int]

_Connections: TypeAlias = WebSocket | str | Iterable[WebSocket | str]

class _Template(Protocol):
    def parameters(self, raw_path: str, /) -> dict[str, str]: ...

class Headers(Mapping[str, str]):
    """Header fields by name, in any case. A field that was sent several times reads as one, joined by commas."""

    _fields: list[tuple[str, str]]
    def __init__(self, fields: list[tuple[str, str]]) -> None: ...
    def __getitem__(self, name: str) -> str: ...
    def get_all(self, name: str) -> list[str]:
        """Returns every value that was sent as ``name``, in order."""
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...

@final
class Request:
    """The request that asked for a WebSocket (RFC 6455 4.1), as `Listener.on_handshake` gets it.

    A handler may set ``user`` (any hashable value), ``subprotocol`` (one of those offered), ``data`` (a dict, later
    ``WebSocket.data``) and fill ``response_headers``. ``session`` is the visitor's HTTP session, if the endpoint has
    `sessions` and the visitor has one; ``claims`` holds the claims of a JWT, if the endpoint has `auth`. Otherwise
    they are None.
    """
    def __new__(cls, head: bytes) -> Self: ...
    user: Any
    session: Session | None
    claims: dict[str, Any] | None
    subprotocol: str | None
    data: dict[Any, Any]
    """A dict for the application's own; the connection keeps it as ``WebSocket.data``."""
    response_headers: dict[str, str | list[str]]
    """Header fields to add to the answer: name to value, or to a list of values."""
    _template: _Template | None
    @property
    def method(self) -> str: ...
    @property
    def is_secure(self) -> bool: ...
    @property
    def path(self) -> str:
        """The path, percent-decoded."""
    @property
    def path_parameters(self) -> dict[str, str]:
        """What the endpoint's path template found, percent-decoded, by name."""
    @property
    def query_string(self) -> str:
        """What follows the question mark, as sent."""
    @property
    def query(self) -> dict[str, str]:
        """The query string's fields by name; of several with one name the last counts."""
    @property
    def headers(self) -> Headers:
        """Case-insensitive mapping of header fields."""
    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name; of several with one name the first counts (RFC 6265 5.4 puts the nearest first)."""
    @property
    def remote_address(self) -> tuple[str, int]:
        """(host, port) of the peer, or of whoever a trusted proxy names; the port is 0 where that does not say."""
    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in its order of preference (RFC 6455 4.1)."""
    @property
    def _raw_path(self) -> str: ...
    @property
    def _from_proxy(self) -> bool: ...
    def _cookie_values(self, name: str) -> list[str]: ...
    def _forward(self, host: str, port: int, is_secure: bool) -> None: ...

@final
class WebSocket:
    """One connection, as listeners and the manager hand it out.

    It stays usable after the connection is gone: `is_open` is False then, `send` returns False, and the rest does
    nothing. ``ws["key"]`` reads and writes `data`.
    """
    def __new__(cls, reactor: Reactor) -> Self: ...
    idle_timeout: float
    """Seconds without a message in either direction, pings aside, after which it is closed with 1001; 0: never."""
    @property
    def id(self) -> str:
        """Unique across all servers of a cluster, and never reused."""
    @property
    def request(self) -> Request: ...
    @property
    def manager(self) -> ConnectionManager:
        """The ConnectionManager of its endpoint."""
    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: from `on_open` until either side begins to close."""
    @property
    def is_secure(self) -> bool:
        """Whether it came over TLS, unless a trusted proxy says otherwise."""
    @property
    def user(self) -> Any:
        """Whoever `on_handshake` said, or None."""
    @property
    def session(self) -> Session | None:
        """The visitor's HTTP session, or None."""
    @property
    def data(self) -> dict[Any, Any]:
        """A dict for the application's own; begins as `Request.data`."""
    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, or None."""
    @property
    def compression(self) -> bool:
        """Whether it takes compressed messages: both sides have agreed on that."""
    @property
    def path(self) -> str:
        """The request's path, percent-decoded."""
    @property
    def path_parameters(self) -> dict[str, str]:
        """The path parameters, percent-decoded, by name."""
    @property
    def query_string(self) -> str:
        """The request's query string, as sent."""
    @property
    def query(self) -> dict[str, str]:
        """The query string's fields by name."""
    @property
    def headers(self) -> Headers:
        """The request's header fields."""
    @property
    def cookies(self) -> dict[str, str]:
        """The request's cookies by name."""
    @property
    def remote_address(self) -> tuple[str, int]:
        """(host, port) of the peer, or of whoever a trusted proxy names; the port is 0 where that does not say."""
    @property
    def channels(self) -> frozenset[str]:
        """The channels it is subscribed to; still readable in `on_close`."""
    @property
    def since(self) -> float | None:
        """When it was accepted, as Unix time in seconds, exact to 10 ms; None where it is closed."""
    @property
    def pending(self) -> int:
        """Bytes that wait to be sent to it."""
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __delitem__(self, key: Any, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __iter__(self) -> NoReturn: ...
    def send(self, message: Any, *, compress: bool | None = None) -> bool:
        """Queue a message. Returns False if the connection is closed, or had no room for it (`max_backlog`).

        ``str`` goes out as text, bytes-like as binary, anything else as orjson text. Never waits. ``compress`` is as
        for `ConnectionManager.broadcast`. Raises TypeError for what orjson cannot encode, RuntimeError from another
        thread.
        """
    def subscribe(self, channel: str) -> int:
        """Join a channel; joining again changes nothing. Returns its number of subscribers."""
    def unsubscribe(self, channel: str) -> int:
        """Leave a channel. Returns the number of subscribers that stay."""
    def unsubscribe_all(self) -> None:
        """Leave every channel."""
    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake (RFC 6455 7.1.2), after everything pending.

        The connection leaves its channels at once; the listener is told when the peer has answered, or after
        `close_timeout`. Raises ValueError for a code that may not be sent or a reason over 123 bytes.
        """
    def ping(self) -> None:
        """Send a ping (RFC 6455 5.5.2)."""
    def _send_run(self, run: Run, first: int = 0) -> int: ...
    def _notify_when_drained(self) -> None: ...
    def _refuse(self, response: bytes) -> None: ...
    def _claim_address(self) -> bool: ...
    def _accept(self, endpoint: Endpoint, response: bytes) -> bool: ...
    def _ready(self) -> None: ...
    def _give_away(self) -> tuple[int | asyncio.Transport, bytes, int] | None: ...
    def _take_result(self, result: Any) -> None: ...
    def _figures(self) -> tuple[int, int, int]: ...
    def _left_groups(self) -> list[tuple[int, Any, float]]: ...
    def _forget_groups(self) -> None: ...

@final
class Run:
    """Messages that `Endpoint._prepare` has encoded. They take memory for as long as this exists."""
    def __new__(cls, reactor: Reactor, messages: Iterable[Any]) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def size(self) -> int:
        """Bytes of the encoded messages."""

@final
class Group:
    def __new__(cls, name: Any, kind: int) -> Self: ...

class _Life(Protocol):
    """What an endpoint tells of its connections."""

    def closed(self, ws: WebSocket, code: int, reason: str) -> None: ...
    def protocol_failed(self, ws: WebSocket, error: ProtocolError) -> None: ...
    def handler_failed(self, ws: WebSocket, error: BaseException) -> None: ...
    def await_message(self, ws: WebSocket, awaitable: Any) -> None: ...
    def drained(self, ws: WebSocket) -> None: ...

class _Server(Protocol):
    """What a reactor tells of requests, and of trouble."""

    def on_request(self, ws: WebSocket) -> None: ...
    def trusts(self, host: str) -> bool: ...
    def on_bad_request(self, ws: WebSocket, status: int, message: str) -> None: ...
    def on_abandoned(self, ws: WebSocket) -> None: ...
    def on_overdue(self, ws: WebSocket) -> None: ...
    def on_accept_paused(self, number: int) -> None: ...
    def on_idle(self) -> None: ...

@disjoint_base
class Endpoint:
    """The engine's half of a ConnectionManager: who is connected, who is in which channel, and sending to them."""

    life: _Life
    @property
    def connection_count(self) -> int:
        """Connections of this endpoint that are open."""
    @property
    def stats(self) -> dict[str, int]:
        """Counters since the start, as a dict: what came in, what was addressed, what an overflow policy did.

        ``binary_received`` counts those of ``messages_received`` that were not text; ``broadcasts`` counts the calls
        that had a channel with members; ``subscriptions`` is how many channels all connections are in, added up.
        ``throttled`` counts the times that a connection was not read because its peer sent too fast
        (`max_message_rate`, `max_byte_rate`) or too much that was compressed; ``compressed`` counts how often a message
        was: once for each size of window that its receivers had agreed on, from ``compressed_before_bytes`` to
        ``compressed_after_bytes``; ``expanded`` counts compressed messages that came, and ``expanded_bytes`` what was
        expanded of them; ``deliveries`` counts frames queued, one per connection; ``closed_slow`` counts connections
        closed with 1013 for more than `max_backlog` bytes pending; ``dropped_oldest`` and ``dropped_newest`` count
        frames not sent for that reason; ``closed_unfinished`` counts connections closed with 1013 because `max_inbound`
        was passed and they held the most.
        """
    def broadcast(
        self,
        channel: str,
        message: Any,
        *,
        to: _Connections | None = None,
        users: Hashable | Iterable[Hashable] = None,
        exclude: _Connections | None = None,
        compress: bool | None = None,
    ) -> int:
        """Send a message to the members of a channel. Returns how many were addressed.

        Where ``to`` (ids) or ``users`` is given, only to those members named in either; never to those in
        ``exclude`` (connections or ids). A single value serves as well as a list. Encoded once, never waits.
        Where `compression` is on, ``compress`` says whether to compress; None: from `compression_threshold` on.
        Raises TypeError for what orjson cannot encode, RuntimeError from another thread.
        """
    def send(self, ids: _Connections, message: Any, *, compress: bool | None = None) -> int:
        """Send a message to connections of this endpoint, by id. Returns how many were addressed."""
    def send_to_user(
        self,
        users: Hashable | Iterable[Hashable],
        message: Any,
        *,
        exclude: _Connections | None = None,
        compress: bool | None = None,
    ) -> int:
        """Send a message to every connection (device) of one or several users. Returns how many were addressed."""
    def _attach(self, reactor: Reactor, on_message: Any, options: Any) -> None: ...
    def _broadcast_to_ready(
        self,
        channel: str,
        message: Any,
        limit: int,
        *,
        exclude: _Connections | None = None,
        compress: bool | None = None,
    ) -> tuple[int, list[WebSocket]]: ...
    def _prepare(self, messages: Iterable[Any]) -> Run: ...
    def _check_thread(self) -> None: ...
    def _find(self, name: str) -> WebSocket | None: ...
    def _members(self, kind: int, name: Hashable) -> list[WebSocket]: ...
    def _counts(self, kind: int) -> dict[Any, int]: ...
    def _count(self, channel: str) -> int: ...
    def _people(self, channel: str) -> dict[Any, tuple[float, int]]: ...
    def _person(self, channel: str, user: Hashable) -> tuple[float, int]: ...
    def _backdate(self, channel: str, ws: WebSocket, since: float) -> None: ...
    def _join(self, kind: int, name: Hashable, ws: WebSocket) -> tuple[int, bool, bool]: ...
    def _leave(self, name: str, ws: WebSocket) -> bool: ...
    def _is_there(self, channel: str, user: Hashable) -> bool: ...
    def _release_group(self, kind: int, name: Hashable) -> bool: ...

@final
class Reactor:
    """Accepts, reads, and writes every connection of one server, on the loop that it was made on.

    It asks ``server.trusts(host)`` whether a peer is a trusted proxy, if any are; "unix" stands for unix sockets. It
    calls ``server.on_request(ws)`` with each request, ``server.on_bad_request(ws, status, message)`` for anything
    else that a peer sends first, ``server.on_overdue(ws)`` if a request got no answer within `handshake_timeout`,
    ``server.on_abandoned(ws)`` if its peer left before that, ``server.on_accept_paused(errno)`` when descriptors run
    out, and ``server.on_idle()`` when it no longer listens and `is_idle`. It tells the `life` of an endpoint
    everything else: ``closed``, ``protocol_failed``, ``handler_failed``, ``await_message``, ``drained``.
    """
    def __new__(cls, loop: asyncio.AbstractEventLoop, server: _Server, options: Any, id_prefix: str) -> Self: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it was made on."""
    @property
    def is_idle(self) -> bool:
        """True when no peer still has data coming."""
    @property
    def counters(self) -> dict[str, int]:
        """Counts that return to zero when nobody is connected, except for the one block being filled, and runs."""
    @property
    def figures(self) -> dict[str, Any]:
        """What went through since the start, and what waits to be sent now.

        ``flushes`` counts the flushes that wrote anything, in buckets by how long they took: up to each of
        `FLUSH_BOUNDS`, and longer; ``pings`` likewise, with `PING_BOUNDS`, how long pongs took, of one ping at a time.
        Looks at every connection.
        """
    def listen(self, sock: socket) -> None:
        """Accept on a listening, non-blocking socket, which the caller still owns."""
    def stop_listening(self, for_good: bool) -> None:
        """Stop accepting; if `for_good`, first take the connections that the kernel has already let in.

        The sockets may be closed afterwards.
        """
    def is_shaking_hands(self, seconds: float) -> bool:
        """Returns whether a peer that connected less than `seconds` ago still has no answer to its request."""
    def hang_up(self) -> None:
        """Drop the connections that have not sent a whole request."""
    def websockets(self) -> list[WebSocket]:
        """Returns every connection that was accepted as a WebSocket and is not over yet."""
    def shut(self) -> None:
        """The end: drop whatever is still connected, and watch nothing any more."""
    def release_address(self, claim: int) -> None:
        """Count one connection fewer from an address. The claim came from `WebSocket._give_away`; 0 stands for none."""

@disjoint_base
class TransportWire:
    """An asyncio protocol that feeds a connection; the connection writes to `transport`."""
    def __new__(
        cls,
        reactor: Reactor,
        is_secure: bool = False,
        peer: tuple[str, int] | None = None,
        is_trusted: bool = False,
    ) -> Self: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def get_buffer(self, hint: int) -> memoryview:
        """Returns the reactor's buffer, which is filled and used within one callback of the loop."""
    def buffer_updated(self, n: int) -> None: ...
    def data_received(self, data: bytes) -> None:
        """Bytes from whoever had the transport before."""
    def eof_received(self) -> bool:
        """The peer shut its side down, and so do we, once everything pending has been handed over.

        Returns True if the transport has to wait for that, which one for TLS cannot.
        """
    def connection_lost(self, error: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

UPGRADE_REQUIRED: Final[dict[str, str]]

def is_awaitable(value: object) -> bool:
    """Returns whether a handler's result has to be awaited."""

def many(value: Any) -> Iterable[Any]:
    """Returns an iterable of ids, users or connections; a single one may be given, too."""

def check_close(code: int, reason: str) -> bytes:
    """Returns the reason as UTF-8. Raises ValueError if a Close may not carry it or the code (RFC 6455 5.5 and 7.4)."""

def decode_path(raw: str) -> str:
    """Percent-decode a path or a segment of one. Raises Reject(400) if the result is not text (RFC 3986 2.1)."""

def parse_proxy_header(data: bytes) -> tuple[int, tuple[str, int] | str | None]:
    """Returns (length, (host, port)) of the PROXY header with which these bytes begin.

    Instead of the peer: "local" where the proxy speaks for itself, None where it does not say for whom. The length is
    0 if more bytes are needed, -1 if they begin something else, -2 if they are malformed; there is no peer then.
    """

def is_upgrade(headers: Headers) -> bool:
    """Returns whether these header fields ask for a WebSocket; anything else is plain HTTP."""

def check_upgrade(request: Request) -> None:
    """RFC 6455 4.2.1. Raises Reject with the status and the reason if the upgrade is not in order."""

def negotiate_deflate(offered: str) -> tuple[int, str]:
    """Returns (bits of the server's window, what is agreed on) for a Sec-WebSocket-Extensions header field.

    The first offer that can be accepted is (RFC 7692 5 and 7.1); where none can be, that is (0, "").
    """

def accept_response(request: Request, may_deflate: bool = False) -> bytes:
    """Returns the 101 answer (RFC 6455 4.2.2), which may agree on compression.

    Raises ValueError for a subprotocol or a header field that may not be sent.
    """

def field_lines(fields: Mapping[str, str | list[str]]) -> list[str]:
    """Returns header field lines made from {name: value or list of values}.

    Raises ValueError for anything that could smuggle a line in.
    """

def pack_head(head: bytes) -> bytes | None:
    """Returns a head in fewer bytes, for `unpack_head`; None when it would not take fewer."""

def unpack_head(packed: bytes) -> bytes:
    """Returns the head that `pack_head` was given."""
