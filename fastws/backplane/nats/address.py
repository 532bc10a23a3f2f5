"""Where the servers are, and as whom to log in."""

import re
import ssl
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ...errors import ConfigurationError

__all__ = ["Address", "Host", "parse"]

PORT = 4222
_host = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[^:\[\]/@\s]+))(?::(?P<port>[0-9]{1,5}))?")


class Host(NamedTuple):
    """One server."""

    name: str
    port: int


class Address(NamedTuple):
    """What a URL says."""

    url: str
    """Without any password."""
    hosts: tuple[Host, ...]
    login: dict[str, str]
    """The fields of CONNECT that say who this is."""
    tls: ssl.SSLContext | None
    replicas: int


def parse(url: str, context: ssl.SSLContext | None = None) -> Address:
    """Returns what a URL says; raises ConfigurationError if it is none of NATS."""
    parts = urlsplit(url)
    if parts.scheme not in ("nats", "tls"):
        raise ConfigurationError(f"{_safe(url)!r} is no URL of NATS: it begins with nats:// or tls://")
    login, _, hosts = parts.netloc.rpartition("@")
    if parts.path not in ("", "/") or parts.fragment or not hosts:
        raise ConfigurationError(
            f"{_safe(url)!r} is no URL of NATS: they look like nats://user:password@h1:4222,h2:4222"
        )
    if parts.scheme == "tls" and context is None:
        context = ssl.create_default_context()
    safe = f"{parts.scheme}://{hosts}"
    parsed = tuple(_parse(host, safe) for host in hosts.split(","))
    return Address(safe, parsed, _login(login), context, _replicas(parts.query))


def _parse(text: str, url: str) -> Host:
    found = _host.fullmatch(text)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise ConfigurationError(f"{text!r} in {url!r} is not the address of a server: they look like nats.local:4222")
    return Host(found["six"] or found["name"], port)


def _login(text: str) -> dict[str, str]:
    user, colon, password = text.partition(":")
    if colon:
        return {"user": unquote(user), "pass": unquote(password)}
    return {"auth_token": unquote(user)} if user else {}


def _replicas(query: str) -> int:
    options = dict(parse_qsl(query, keep_blank_values=True))
    replicas = options.pop("replicas", "1")
    if options:
        raise ConfigurationError(f"{next(iter(options))!r} is no option in a URL of NATS; there is only 'replicas'")
    if replicas not in ("1", "2", "3", "4", "5"):
        raise ConfigurationError(f"replicas={replicas!r}: NATS keeps 1 to 5, and recommends 1 or 3")
    return int(replicas)


def _safe(url: str) -> str:
    """Returns a URL without what may be a password."""
    return re.sub(r"//.*@", "//", url)
