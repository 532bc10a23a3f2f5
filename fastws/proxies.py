"""Trusted proxies: which peers they are, and what their header fields say of whoever asks.

`X-Forwarded-For` and `Forwarded` (RFC 7239) name the client and the proxies on the way, the nearest of them last.
Anybody may have written the first, so they are read from the end: each address that is trusted vouches for the one
before it. If both are there, the first counts: most proxies set that one, and pass the other on as it came.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from ._core import Headers

__all__ = ["Origin", "Peer", "Proxies", "fault_of", "request_id"]

UNIX = "unix"  # stands for every unix socket
MAPPED_BITS = 96  # before an IPv4 address within an IPv6 one
MAPPED = IPv6Network(f"::ffff:0:0/{MAPPED_BITS}")

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
PAIR = re.compile(rf'({TOKEN})=(?:({TOKEN})|"([^"\\]*)")')
NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")
HARMLESS_ID = re.compile(r"[0-9A-Za-z._~+/=-]{1,64}")
SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}


class Origin(NamedTuple):
    """Where a request comes from; the port is 0 if nobody said."""

    host: str
    port: int
    is_secure: bool


class Peer(NamedTuple):
    """Whoever is at the other end of a connection, or was named by a PROXY header."""

    address: tuple[str, int]
    is_trusted: bool


class Proxies:
    """The peers that are trusted. Raises ValueError for what is not an address, a network, or "unix"."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._has_unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for each in trusted:
            if each == UNIX:
                self._has_unix = True
            else:
                self._networks.append(_network(each))

    def __bool__(self) -> bool:
        return self._has_unix or bool(self._networks)

    def trusts(self, host: str) -> bool:
        """Returns whether an address is a trusted proxy's; "unix" stands for a unix socket's peer."""
        if host == UNIX:
            return self._has_unix
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)

    def origin(self, headers: Headers, peer: tuple[str, int], is_secure: bool) -> Origin:
        """Returns where a request comes from that a trusted ``peer`` passed on: the last address that is not trusted.

        Where an address is malformed, or nothing is said, it is the last proxy that is known.
        """
        passed_on = headers.get("x-forwarded-for")
        hops: Iterator[tuple[str | None, str | None]]
        if passed_on is not None:
            hops = ((part, None) for part in _members(passed_on))
        else:
            hops = _forwarded(headers.get("forwarded", ""))
        host, port = peer
        for node, scheme in hops:
            is_secure = SCHEMES.get((scheme or "").lower(), is_secure)
            found = None if node is None else _node(node)
            if found is None:
                break
            host, port = found
            if not self.trusts(host):
                break
        said = next(_members(headers.get("x-forwarded-proto", "")), "")
        return Origin(host, port, SCHEMES.get(said.lower(), is_secure))


def fault_of(trusted: Iterable[str]) -> str:
    """Returns what is wrong with trusted proxies, as the end of a sentence; "" if nothing is."""
    try:
        Proxies(trusted)
    except ValueError as error:
        return f": {error}"
    return ""


def request_id(headers: Headers) -> str | None:
    """Returns the id that a trusted proxy gave a request, if it is short and harmless."""
    given = headers.get_all("x-request-id")
    return given[0] if len(given) == 1 and HARMLESS_ID.fullmatch(given[0]) else None


def _network(text: str) -> IPv4Network | IPv6Network:
    """Raises ValueError with a sentence that says what it should have been."""
    try:
        network = ip_network(text)
    except ValueError:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not an address, a network such as '10.0.0.0/8', or 'unix'") from None
        raise ValueError(f"{text!r} is an address within a network: use {str(network)!r}") from None
    if isinstance(network, IPv6Network) and "%" not in text and network.subnet_of(MAPPED):
        ipv4 = network.network_address.ipv4_mapped
        assert ipv4 is not None
        return IPv4Network((ipv4, network.prefixlen - MAPPED_BITS))
    return network


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Returns an address, an IPv4 one even when mapped into IPv6; None if it is none."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _members(value: str) -> Iterator[str]:
    """The members of a comma-separated list (RFC 9110 5.6.1), the last first."""
    return (part for part in map(_stripped, reversed(value.split(","))) if part)


def _stripped(text: str) -> str:
    return text.strip(" \t")


def _forwarded(value: str) -> Iterator[tuple[str | None, str | None]]:
    """The `for` and the `proto` of each element, the last first, up to one that is malformed.

    Commas within quotes are not told from others: what a stranger has quoted could hide what a proxy added to it. No
    address has one.
    """
    for element in _members(value):
        pairs: dict[str, str] = {}
        for text in map(_stripped, element.split(";")):
            pair = PAIR.fullmatch(text)
            if pair is None or pair[1].lower() in pairs:
                return
            pairs[pair[1].lower()] = pair[2] or pair[3] or ""
        yield pairs.get("for"), pairs.get("proto")


def _node(text: str) -> tuple[str, int] | None:
    """Returns (host, port) of an address with or without a port; None for anything else, such as "unknown"."""
    node = NODE.fullmatch(text)
    address = _address(text if node is None else node[1] or node[2]) if "%" not in text else None
    if address is None or (node is not None and node[1] is not None and ":" not in node[1]):
        return None
    port = int(node[3] or 0) if node is not None else 0
    return (str(address), port) if port <= 0xFFFF else None
