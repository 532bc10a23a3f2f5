"""Every option of fastws, declared once: name, default, unit, and what may not be."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from ssl import SSLContext
from typing import Any, Literal, get_args, get_origin

from .auth import Auth
from .errors import ConfigurationError
from .sessions import Sessions

__all__ = ["EndpointOptions", "Options"]

LONGEST_PATH = 107  # bytes, of a unix socket
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _option(default: Any, help: str, *, least: float | None = None, most: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """What a server sets for all of its endpoints and each endpoint may set for itself."""

    max_message_size: int = _option(
        1 * MIB, "largest message accepted, in bytes; over it: close 1009", least=1, most=1 << 62
    )
    max_connections: int | None = _option(None, "most connections at a time, HTTP's included; over it: 503", least=1)
    max_backlog: int = _option(1 * MIB, "most bytes a connection may have pending", least=1, most=GIB)
    overflow: Literal["close", "drop_oldest", "drop_newest"] = _option("close", "what happens past max_backlog")
    max_message_rate: float = _option(
        0, "messages, pings and pongs that a connection may send in a second; 0: any number", least=0
    )
    max_byte_rate: float = _option(0, "bytes that a connection may send in a second; 0: any number", least=0)
    over_rate: Literal["pause", "close"] = _option("pause", "what happens past these: read later, or close 1008")
    idle_timeout: float = _option(
        300, "seconds without a message before close 1001, or without a byte that HTTP waits for; 0: never", least=0
    )
    ping_interval: float = _option(20, "seconds without a sign of life before a ping; 0: no pings", least=0)
    ping_timeout: float = _option(20, "seconds that an answer to a ping may take; 0: for ever", least=0)
    close_timeout: float = _option(10, "seconds that a peer may take to answer a Close", least=0.01)
    origins: Sequence[str] | None = _option(None, "the only origins that browsers may come from; none: any")
    subprotocols: Sequence[str] = _option((), "subprotocols spoken, in order of preference")
    offline_after: float = _option(
        0, "seconds that a user may be without connection before going offline", least=0, most=24 * 3600
    )
    sessions: Sessions | None = _option(None, "where the visitors' HTTP sessions are")
    auth: Auth | None = _option(None, "who is admitted, by token")

    def __post_init__(self) -> None:
        for option in fields(self):
            _check(option.name, getattr(self, option.name), option.type, option.metadata)


@dataclass(frozen=True, kw_only=True)
class Options(EndpointOptions):
    """All options of a server."""

    host: str = _option("127.0.0.1", "address to listen on; an empty one: all")
    port: int = _option(8765, "port to listen on; 0: any free one", least=0, most=65535)
    uds: str | None = _option(None, "path of a unix socket to listen on instead")
    uds_permissions: int = _option(0o660, "of the unix socket, octal", least=0o600, most=0o777)
    fd: Sequence[int] = _option((), "descriptors of listening sockets to serve on instead")
    ready_path: str | None = _option(None, "path at which the server says whether it is ready: 200 or 503")
    drain_rate: float = _option(1000, "connections closed a second when the server stops; 0: all at once", least=0)
    drain_timeout: float = _option(
        20, "seconds that closing them may take, even if that needs a higher rate", least=0, most=24 * 3600
    )
    restart: bool = _option(False, "close with 1012 (come back) instead of 1001 when the server stops")
    handshake_timeout: float = _option(
        10, "seconds that each request's head may take (over it: 408), or a pause before the next", least=0.01
    )
    max_header_size: int = _option(
        16 * KIB, "largest head of each request, in bytes; over it: 431", least=256, most=MIB
    )
    max_connections_per_ip: int | None = _option(
        None, "most connections from one IPv4 address or IPv6 /64, of any kind; over it: 503", least=1
    )
    max_arena: int = _option(256 * MIB, "most bytes of frames kept for slow readers, all together", least=MIB)
    flush_threads: int = _option(min(4, _cores()), "threads that write a large fan-out", least=1, most=64)
    ssl: SSLContext | None = _option(None, "TLS for every connection")
    http: Callable[..., Any] | None = _option(None, "an ASGI application for plain requests on the same port")


def _check(name: str, value: Any, kind: Any, metadata: Any) -> None:
    """Raise a ConfigurationError that names the value and the fix."""
    least, most = metadata["least"], metadata["most"]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            *others, last = get_args(kind)
            raise ConfigurationError(f"{name}={value!r}: choose {', '.join(others)} or {last}")
    elif name in ("origins", "subprotocols"):
        if isinstance(value, str) or not all(isinstance(item, str) and item for item in value or ()):
            raise ConfigurationError(f"{name}={value!r}: give a list of strings")
    elif name == "fd":
        if not isinstance(value, list | tuple) or not all(type(item) is int and item >= 0 for item in value):
            raise ConfigurationError(f"fd={value!r}: give a list of descriptors, as in [3]")
    elif name == "uds":
        fits = isinstance(value, str) and "\0" not in value and 0 < len(os.fsencode(value)) <= LONGEST_PATH
        if value is not None and not fits:
            raise ConfigurationError(f"uds={value!r}: give a path of 1 to {LONGEST_PATH} bytes")
    elif name == "uds_permissions":
        if type(value) is not int or not least <= value <= most:
            shown = oct(value) if type(value) is int else repr(value)
            raise ConfigurationError(f"uds_permissions={shown} does not work: 0o600 to 0o777 does")
    elif name == "ready_path":
        if value is not None and not (isinstance(value, str) and value.startswith("/")):
            raise ConfigurationError(f"ready_path={value!r}: give a path that begins with a slash")
    elif kind is bool:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name}={value!r}: give True or False")
    elif name == "host":
        if not isinstance(value, str):
            raise ConfigurationError(f"host={value!r}: give a name or an address as a string")
    elif name in ("sessions", "auth"):
        protocol = Sessions if name == "sessions" else Auth
        if value is not None and (isinstance(value, type) or not isinstance(value, protocol)):
            takes = "a SignedCookieSessions or a StoreSessions" if name == "sessions" else "a JWTAuth"
            raise ConfigurationError(f"{name}={value!r}: give {takes}")
    elif name == "ssl":
        if not isinstance(value, SSLContext | None):
            raise ConfigurationError(f"ssl={value!r}: give an ssl.SSLContext")
    elif name == "http":
        if not (value is None or callable(value)):
            raise ConfigurationError(f"http={value!r}: give an ASGI application")
    elif value is None and kind == int | None:
        pass
    elif isinstance(value, bool) or not isinstance(value, int if kind in (int, int | None) else int | float):
        raise ConfigurationError(f"{name}={value!r}: give {'a whole number' if kind is int else 'a number'}")
    elif not (least or 0) <= value <= (most or float("inf")):
        bounds = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
        raise ConfigurationError(f"{name}={value!r} is out of range: {bounds} works")
