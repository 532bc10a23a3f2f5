"""URLs of Redis."""

import ssl as tls
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from ...errors import ConfigurationError
from .link import Address, Credentials

__all__ = ["Place", "place_of"]

KINDS: dict[str, Literal["server", "sentinel", "cluster"]] = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+unix": "server",
    "sentinel": "sentinel",
    "sentinels": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
SECURE = {"rediss", "sentinels", "rediss+cluster"}
PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True)
class Place:
    """Where a Redis is, and how one gets in."""

    kind: Literal["server", "sentinel", "cluster"]
    addresses: Sequence[Address]
    name: str  # of the master that sentinels watch
    credentials: Credentials
    url: str  # without the password


def place_of(urls: Sequence[str], ssl: tls.SSLContext | None) -> Place:
    """Returns what URLs say; raises ConfigurationError for those that say nothing useful."""
    places = [_place(url, ssl) for url in urls]
    first = places[0]
    if len(places) == 1:
        return first
    if any(place.kind != "server" for place in places):
        raise ConfigurationError("backplane: several URLs must all be those of single servers, redis://host")
    if any(place.credentials != first.credentials for place in places):
        raise ConfigurationError("backplane: several servers must have one user, password and database")
    addresses = [address for place in places for address in place.addresses]
    return Place("server", addresses, "", first.credentials, ", ".join(place.url for place in places))


def _place(url: str, ssl: tls.SSLContext | None) -> Place:
    try:
        parts = urlsplit(url)
        kind = KINDS[parts.scheme]
        who, _, hosts = parts.netloc.rpartition("@")
        user, _, password = who.partition(":")
        path = [unquote(part) for part in parts.path.split("/") if part]
        is_unix = "unix" in parts.scheme
        addresses = [Address(unquote(parts.path), 0)] if is_unix else _addresses(hosts, PORTS[kind])
        name = path.pop(0) if kind == "sentinel" else ""
        database = 0 if is_unix or not path else int(path.pop(0))
        if (path and not is_unix) or parts.fragment or parts.query or database < 0 or (kind == "cluster" and database):
            raise ValueError
    except (KeyError, ValueError, IndexError):
        raise ConfigurationError(
            f"backplane={_shown(url)!r} is no URL of a Redis: they look like redis://user:password@host:6379/0, "
            "rediss://host, unix:///run/redis.sock, sentinel://host1,host2/name or redis+cluster://host1,host2"
        ) from None
    if parts.scheme in SECURE:
        ssl = ssl or tls.create_default_context()
    credentials = Credentials(unquote(user), unquote(password), database, ssl)
    return Place(kind, addresses, name, credentials, _shown(url))


def _addresses(hosts: str, port: int) -> list[Address]:
    addresses = []
    for host in hosts.split(","):
        one = SplitResult("", host, "", "", "")
        if not one.hostname:
            raise ValueError
        addresses.append(Address(one.hostname, port if one.port is None else one.port))
    return addresses


def _shown(url: str) -> str:
    """Returns a URL without user and password."""
    scheme, slashes, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{netloc.rpartition('@')[2]}{slash}{path}"
