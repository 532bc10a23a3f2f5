"""Every option of fastws, declared once: name, type, default, help text and check."""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from ssl import SSLContext
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from .auth import Auth
from .errors import ConfigurationError
from .logs import History, Latest
from .proxies import fault_of
from .sessions import Sessions

__all__ = ["EndpointKeywords", "EndpointOptions", "OptionKeywords", "Options", "ServerKeywords", "default_of"]

Overflow: TypeAlias = Literal["close", "drop_oldest", "drop_newest"]
OverRate: TypeAlias = Literal["pause", "close"]
ProxyProtocol: TypeAlias = Literal["off", "optional", "required"]
Degraded: TypeAlias = Literal["open", "close"]
Compression: TypeAlias = Literal["off", "shared"]

# Returns what is wrong with a value, as the end of a sentence that begins with "name=value"; "" if nothing is.
Check: TypeAlias = Callable[[Any], str]

MAX_PATH_BYTES = 107  # of a unix socket
DAY_SECONDS = 24 * 3600
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _option(
    default: Any,
    help: str,
    check: Check,
    *,
    default_text: str | None = None,
    parse: Callable[[str], Any] | None = None,
    show: Callable[[Any], str] = repr,
) -> Any:
    """Returns a row of the tables below.

    ``default_text`` describes a default that depends on the machine. ``parse`` converts text to a value if the type
    alone does not say how, and raises ValueError. ``show`` converts a value to text for messages.
    """
    metadata = {"help": help, "check": check, "default_text": default_text, "parse": parse, "show": show}
    return field(default=default, metadata=metadata)


def default_of(option: Field[Any]) -> str:
    """Returns an option's default as text, "none" if it has none."""
    if option.metadata["default_text"] is not None:
        return str(option.metadata["default_text"])
    if option.default in (None, ()):
        return "none"
    return str(option.default) if option.metadata["parse"] is None else option.metadata["show"](option.default)


# -- checks


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value and 0 < len(os.fsencode(value)) <= MAX_PATH_BYTES


def _is_url_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _is_prefix(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[A-Za-z0-9_-]{1,40}", value) is not None


def _are_strings(value: Any) -> bool:
    is_several = isinstance(value, Collection) and not isinstance(value, str)
    return is_several and all(isinstance(item, str) and item for item in value)


def _are_descriptors(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_whole(item) and item >= 0 for item in value)


def _is_instance_of(protocol: Any) -> Callable[[Any], bool]:
    """Returns a test for instances of a class or protocol, as opposed to the class itself."""
    return lambda value: not isinstance(value, type) and isinstance(value, protocol)


def _must_be(what: str, fits: Callable[[Any], bool]) -> Check:
    return lambda value: "" if fits(value) else f" must be {what}"


def _within(least: float, most: float | None, otherwise: Check) -> Check:
    bounds = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
    upper = float("inf") if most is None else most
    return lambda value: otherwise(value) or ("" if least <= value <= upper else f" is out of range: use {bounds}")


def _whole(least: int, most: int | None = None) -> Check:
    return _within(least, most, _must_be("a whole number", _is_whole))


def _number(least: float, most: float | None = None) -> Check:
    return _within(least, most, _must_be("a number", _is_number))


def _choice(of: Any) -> Check:
    *others, last = get_args(of)
    return lambda value: "" if value in get_args(of) else f": choose {', '.join(others)} or {last}"


def _optional(check: Check) -> Check:
    return lambda value: "" if value is None else check(value)


_flag = _must_be("True or False", lambda value: isinstance(value, bool))
_strings = _must_be("a list of strings", _are_strings)


def _proxies(value: Any) -> str:
    return _strings(value) or fault_of(value)


def _logs(value: Any) -> str:
    if callable(value):
        return ""
    if isinstance(value, Mapping) and all(
        isinstance(glob, str) and isinstance(keep, History | Latest) for glob, keep in value.items()
    ):
        return ""
    return ' must be a dict of globs, as in {"room-*": History()}, each with a History or a Latest, or a function'


def _backplane(value: Any) -> str:
    if value is None or (isinstance(value, str) and "://" in value):
        return ""
    fits = not isinstance(value, str | type) and hasattr(value, "append") and hasattr(value, "beat")
    return "" if fits else " must be a URL such as redis://127.0.0.1:6379, or a Backplane"


def _permissions(value: Any) -> str:
    return "" if _is_whole(value) and 0o600 <= value <= 0o777 else " is out of range: use 0o600 to 0o777"


def octal(text: str) -> int:
    """Returns permissions given as for chmod(1)."""
    try:
        return int(text, 8)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not an octal number") from None


def _show_octal(value: Any) -> str:
    return oct(value) if _is_whole(value) else repr(value)


def _show_backplane(value: Any) -> str:
    """A URL may hold a password."""
    return "'***'" if isinstance(value, str) and "@" in value else repr(value)


# -- the options


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Options that a server sets for all its endpoints, and that each endpoint can override."""

    max_message_size: int = _option(
        1 * MIB, "maximum size of a message in bytes; a larger one closes the connection with 1009", _whole(1, 1 << 62)
    )
    max_connections: int | None = _option(
        None,
        "maximum concurrent connections, including those of the HTTP application; more get 503",
        _optional(_whole(1)),
    )
    max_backlog: int = _option(
        1 * MIB, "maximum bytes waiting to be sent on one connection; see overflow", _whole(1, GIB)
    )
    compression: Compression = _option(
        "off",
        "permessage-deflate (RFC 7692) with clients that offer it: off, or shared: once per broadcast",
        _choice(Compression),
    )
    compression_threshold: int = _option(
        KIB, "messages of fewer bytes than this are not compressed, unless a call says so", _whole(0, GIB)
    )
    compression_level: int = _option(1, "how hard to compress: 1 (fastest) to 9 (smallest)", _whole(1, 9))
    overflow: Overflow = _option(
        "close",
        "what to do when max_backlog is exceeded: close with 1013, or drop the oldest or newest messages",
        _choice(Overflow),
    )
    max_message_rate: float = _option(
        0,
        "maximum frames per second from one connection, including fragments, pings and pongs; 0: unlimited",
        _number(0),
    )
    max_byte_rate: float = _option(0, "maximum bytes per second from one connection; 0: unlimited", _number(0))
    over_rate: OverRate = _option(
        "pause",
        "what to do when max_message_rate or max_byte_rate is exceeded: pause reading, or close with 1008",
        _choice(OverRate),
    )
    idle_timeout: float = _option(
        300,
        "seconds without a message before closing with 1001, or without expected HTTP bytes; 0: never",
        _number(0),
    )
    ping_interval: float = _option(
        20, "seconds without receiving anything before sending a ping; 0: no pings", _number(0)
    )
    ping_timeout: float = _option(20, "seconds to wait for the answer to a ping; 0: forever", _number(0))
    close_timeout: float = _option(10, "seconds to wait for a peer to answer a Close", _number(0.01))
    origins: Sequence[str] | None = _option(
        None, "allowed values of the Origin header; by default, all", _optional(_strings)
    )
    subprotocols: Sequence[str] = _option((), "supported subprotocols, in order of preference", _strings)
    offline_after: float = _option(
        0, "seconds without a connection before a user counts as offline", _number(0, DAY_SECONDS)
    )
    sessions: Sessions | None = _option(
        None,
        "where to find visitors' HTTP sessions, such as a StoreSessions",
        _optional(_must_be("a SignedCookieSessions or a StoreSessions", _is_instance_of(Sessions))),
    )
    auth: Auth | None = _option(
        None, "how clients authenticate, such as a JWTAuth", _optional(_must_be("a JWTAuth", _is_instance_of(Auth)))
    )
    logs: Any = _option(
        None,
        "what channels keep: globs, each with a History or a Latest, of which the first counts; or a function",
        _optional(_logs),
    )
    presence: Sequence[str] = _option(
        (), "globs of channels whose presence is kept across nodes though nobody watches them", _strings
    )
    resume_limit: int = _option(
        1000,
        "maximum messages sent to a client that comes back to a log; one that missed more is told so",
        _whole(0, 100_000),
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            fault = option.metadata["check"](value)
            if fault:
                raise ConfigurationError(f"{option.name}={option.metadata['show'](value)}{fault}")


@dataclass(frozen=True, kw_only=True)
class Options(EndpointOptions):
    """All options of a server."""

    host: str = _option(
        "127.0.0.1",
        "address to listen on; empty: all interfaces",
        _must_be("a name or an address, as a string", _is_string),
    )
    port: int = _option(8765, "port to listen on; 0: any free one", _whole(0, 65535))
    uds: str | None = _option(
        None,
        "path of a unix socket to listen on, instead of host and port",
        _optional(_must_be(f"a path of 1 to {MAX_PATH_BYTES} bytes", _is_path)),
    )
    uds_permissions: int = _option(
        0o660, "permissions of the unix socket, in octal", _permissions, parse=octal, show=_show_octal
    )
    fd: Sequence[int] = _option(
        (),
        "file descriptors of listening sockets to use, instead of host and port",
        _must_be("a list of file descriptors, such as [3]", _are_descriptors),
    )
    ready_path: str | None = _option(
        None,
        "path that answers 200 if the server is ready, otherwise 503",
        _optional(_must_be("a path that begins with a slash", _is_url_path)),
    )
    drain_rate: float = _option(
        1000, "connections to close per second when the server stops; 0: all at once", _number(0)
    )
    drain_timeout: float = _option(
        20,
        "seconds within which to close all connections when the server stops, even if that exceeds drain_rate",
        _number(0, DAY_SECONDS),
    )
    restart: bool = _option(False, "close with 1012 (restart) instead of 1001 when the server stops", _flag)
    handshake_timeout: float = _option(
        10,
        "seconds for each request head (then 408), for a whole handshake (503), and between HTTP requests",
        _number(0.01),
    )
    max_header_size: int = _option(
        16 * KIB, "maximum size of a request head in bytes; a larger one gets 431", _whole(256, MIB)
    )
    max_connections_per_ip: int | None = _option(
        None,
        "maximum connections of any kind from one IPv4 address or IPv6 /64; more get 503",
        _optional(_whole(1)),
    )
    trusted_proxies: Sequence[str] = _option(
        (),
        'proxies that may say who their clients are: addresses, networks such as 10.0.0.0/8, or "unix"',
        _proxies,
    )
    proxy_protocol: ProxyProtocol = _option(
        "off",
        "whether connections from trusted_proxies may or must begin with a PROXY protocol header, version 1 or 2",
        _choice(ProxyProtocol),
    )
    max_inbound: int = _option(
        256 * MIB, "maximum bytes of unfinished messages and requests, for all connections together", _whole(MIB)
    )
    max_arena: int = _option(256 * MIB, "maximum bytes of frames in memory, for all slow readers together", _whole(MIB))
    backplane: Any = _option(
        None,
        "store that nodes share, so that they behave as one server: a URL such as redis://127.0.0.1:6379",
        _backplane,
        parse=str,
        show=_show_backplane,
    )
    prefix: str = _option(
        "fastws",
        "begins every name in the backplane; servers with the same prefix are one server",
        _must_be("1 to 40 letters, digits, hyphens and underscores", _is_prefix),
    )
    lease: float = _option(
        6, "a node is dead to the others if they have heard nothing of it for this many seconds", _number(0.5, 3600)
    )
    handover: float = _option(
        5,
        "users of a node that stops count as there for this many seconds, in which they come back elsewhere",
        _number(0, 3600),
    )
    degraded: Degraded = _option(
        "open",
        "what a node does that has been without its backplane for a lease: stay open, or close its connections (1012)",
        _choice(Degraded),
    )
    backplane_timeout: float = _option(5, "seconds to wait for an answer of the backplane", _number(0.1, 3600))
    backplane_buffer: int = _option(
        4 * MIB, "maximum bytes that wait for a backplane that is away; more are dropped", _whole(0, GIB)
    )
    log_memory: int = _option(
        64 * MIB, "maximum bytes of recent messages of logs, kept for clients that come back", _whole(MIB, 64 * GIB)
    )
    flush_threads: int = _option(
        min(4, _cores()), "threads that write large fan-outs", _whole(1, 64), default_text="min(4, cores)"
    )
    ssl: SSLContext | None = _option(
        None, "TLS context for every connection", _optional(_must_be("an ssl.SSLContext", _is_instance_of(SSLContext)))
    )
    http: Callable[..., Any] | None = _option(
        None, "ASGI application for plain requests on the same port", _optional(_must_be("an ASGI app", callable))
    )
    http_websockets: bool = _option(
        True, "whether WebSockets at paths that no endpoint has go to the application of http", _flag
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.proxy_protocol != "off":
            set_to = f"proxy_protocol={self.proxy_protocol!r}"
            if not self.trusted_proxies:
                raise ConfigurationError(f"{set_to} needs trusted_proxies: name those that may send the header")
            if self.ssl is not None:
                raise ConfigurationError(
                    f"{set_to} does not go with ssl: the header comes before TLS, so let the proxy do TLS"
                )


# -- the options as keyword arguments, for type checkers; a test keeps names and types equal


class EndpointKeywords(TypedDict, total=False):
    """The keyword arguments of `Server.endpoint`."""

    max_message_size: int
    max_connections: int | None
    max_backlog: int
    compression: Compression
    compression_threshold: int
    compression_level: int
    overflow: Overflow
    max_message_rate: float
    max_byte_rate: float
    over_rate: OverRate
    idle_timeout: float
    ping_interval: float
    ping_timeout: float
    close_timeout: float
    origins: Sequence[str] | None
    subprotocols: Sequence[str]
    offline_after: float
    sessions: Sessions | None
    auth: Auth | None
    logs: Any
    presence: Sequence[str]
    resume_limit: int


class ServerKeywords(EndpointKeywords, total=False):
    """The keyword arguments of `Server`, except ``host`` and ``port``."""

    uds: str | None
    uds_permissions: int
    fd: Sequence[int]
    ready_path: str | None
    drain_rate: float
    drain_timeout: float
    restart: bool
    handshake_timeout: float
    max_header_size: int
    max_connections_per_ip: int | None
    trusted_proxies: Sequence[str]
    proxy_protocol: ProxyProtocol
    max_inbound: int
    max_arena: int
    backplane: Any
    prefix: str
    lease: float
    handover: float
    degraded: Degraded
    backplane_timeout: float
    backplane_buffer: int
    log_memory: int
    flush_threads: int
    ssl: SSLContext | None
    http: Callable[..., Any] | None
    http_websockets: bool


class OptionKeywords(ServerKeywords, total=False):
    """All options."""

    host: str
    port: int
