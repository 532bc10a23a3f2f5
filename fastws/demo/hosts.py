"""Whom the demo serves: its own host names, and the origins whose pages may talk to it.

A page of any site may try to open a WebSocket here, or to post; the Origin header tells where the page is from. And
anybody's domain name may resolve to this machine (DNS rebinding), which makes a page of that domain same-origin with
the demo; the Host header reveals that.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from fastws import ConfigurationError, Listener, Reject, Request

__all__ = ["Guarded", "Hosts"]

PORTS = {"http": 80, "https": 443}
ORIGINS_EXAMPLE = "--origins https://chat.example.org"
MAX_SHOWN_CHARACTERS = 100  # of a header field in a message

is_authority = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{0,5}))?").fullmatch


class Hosts:
    """The hosts and origins that the demo serves.

    The hosts are all IP addresses (which cannot be rebound), localhost and its subdomains, this machine's own name, the
    `host` that the server listens on, and those of `origins`. The origins are that of the host itself, and `origins`.
    """

    def __init__(self, host: str, origins: Sequence[str] = ()) -> None:
        self._origins = {parse_allowed(origin) for origin in origins}
        names = {host.lower(), socket.gethostname().lower(), *(name for _, name, _ in self._origins)}
        self._names = {name.removesuffix(".") for name in names} - {""}

    def refusal(self, host: str, origin: str | None, is_secure: bool) -> Reject | None:
        """Returns why a request must be refused, or None, given its header fields and whether it came over TLS.

        A request without Origin does not come from another site's page: browsers send it with every request that could
        do harm.
        """
        name, port = parse_host(host) or ("", None)
        if not self._has(name):
            shown = host[:MAX_SHOWN_CHARACTERS]
            reason = f"the host {shown!r} is not served here: allow it with {ORIGINS_EXAMPLE}"
            return Reject(421, reason, is_for_scripts=False)
        if origin is None:
            return None
        came_from = parse_origin(origin)
        if came_from in self._origins or came_from in same_origins(name, port, is_secure):
            return None
        shown = origin[:MAX_SHOWN_CHARACTERS]
        reason = f"the origin {shown!r} is not allowed here: allow it with {ORIGINS_EXAMPLE}"
        return Reject(403, reason, is_for_scripts=False)

    def _has(self, name: str) -> bool:
        return name in self._names or name == "localhost" or name.endswith(".localhost") or is_address(name)


class Guarded(Listener):
    """A listener that refuses all requests that `Hosts` does not serve."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def on_handshake(self, request: Request) -> Reject | None:
        headers = request.headers
        return self._hosts.refusal(headers.get("host", ""), headers.get("origin"), request.is_secure)


def same_origins(name: str, port: int | None, is_secure: bool) -> list[tuple[str, str, int | None]]:
    """Returns the possible origins of pages from a host.

    A host without TLS may be behind a proxy with TLS.
    """
    schemes = ["https"] if is_secure else ["http", "https"]
    return [(scheme, name, PORTS[scheme] if port is None else port) for scheme in schemes]


def parse_host(text: str) -> tuple[str, int | None] | None:
    """Returns name and port of a Host (RFC 9110 7.2), without a trailing dot; None if it is malformed."""
    match = is_authority(text.lower())
    if match is None:
        return None
    return match[1].strip("[]").removesuffix("."), int(match[2]) if match[2] else None


def parse_origin(text: str) -> tuple[str, str, int | None] | None:
    """Returns scheme, name and port of an Origin (RFC 6454 6.2); None if it is "null" or malformed."""
    scheme, _, authority = text.lower().partition("://")
    host = parse_host(authority)
    if host is None or not scheme:
        return None
    name, port = host
    return scheme, name, PORTS.get(scheme) if port is None else port


def parse_allowed(text: str) -> tuple[str, str, int | None]:
    origin = parse_origin(text)
    if origin is None:
        raise ConfigurationError(
            f"origins: {text!r} is not an origin: write scheme://host[:port], as in {ORIGINS_EXAMPLE}"
        )
    return origin


def is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
