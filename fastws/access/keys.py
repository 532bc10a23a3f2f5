"""API keys: who may call the HTTP API, and for what.

A key is known by its SHA-256 digest alone, and never shown: not in a log, an error, or a repr.
"""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from ..errors import ConfigurationError, Reject

__all__ = ["Key", "KeySettings", "Keys", "Scope"]

Scope: TypeAlias = Literal["broadcast", "send", "subscribe", "close", "read"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
NO_KEY = "no key is set: [[api.keys]] in fastws.toml"
CHALLENGE = {"WWW-Authenticate": "Bearer"}  # RFC 6750 3
LEAST_LENGTH = 16  # characters of a key: nobody guesses that many, however often they may try

MOST_FAILURES = 5  # wrong keys from one address within
FAILURE_WINDOW = 60.0  # seconds
MOST_ADDRESSES = 1024  # that are remembered


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[api.keys]]``: a name, exactly one of ``key``, ``key_file`` and ``key_sha256``, and what it is for."""

    name: Annotated[str, Meta(description="a name for logs and errors")]
    key: Annotated[str | None, Meta(description="the key, of 16 characters or more: openssl rand -hex 32")] = None
    key_file: Annotated[str | None, Meta(description="path of a file that holds the key and nothing else")] = None
    key_sha256: Annotated[str | None, Meta(description="SHA-256 digest of the key, in hexadecimal")] = None
    allow: Annotated[tuple[Scope, ...], Meta(description="what it may do; by default all")] = SCOPES
    channels: Annotated[
        tuple[str, ...],
        Meta(description="globs of the channels that it may name, by default all; send, and close of users, name none"),
    ] = ("*",)

    def __repr__(self) -> str:
        return f"KeySettings(name={self.name!r}, allow={self.allow}, channels={self.channels})"


@dataclass(frozen=True)
class Key:
    """A key that is known."""

    name: str
    allow: frozenset[str]
    channels: tuple[str, ...]

    def require(self, scope: Scope) -> None:
        """Raises Reject(403) where it is not for this."""
        if scope not in self.allow:
            raise Reject(403, f"the key {self.name!r} may not {scope}")

    def covers(self, channel: str) -> bool:
        """Whether it may name a channel."""
        return self.channels == ("*",) or any(fnmatchcase(channel, glob) for glob in self.channels)

    def require_channel(self, channel: str) -> None:
        """Raises Reject(403) for a channel that it may not name."""
        if not self.covers(channel):
            raise Reject(403, f"the key {self.name!r} does not cover this channel")


class Keys:
    """The keys of a server; raises ConfigurationError for what cannot work."""

    def __init__(self, settings: Sequence[KeySettings]) -> None:
        self._keys: list[tuple[bytes, Key]] = []
        self._failures = Failures()
        self.generation = 0  # how often they were replaced
        names: set[str] = set()
        for entry in settings:
            if not entry.name or entry.name in names:
                raise ConfigurationError(f"[[api.keys]] name={entry.name!r} is empty or taken: give each its own")
            names.add(entry.name)
            digest = _digest_of(entry)
            if any(hmac.compare_digest(digest, other) for other, _ in self._keys):
                raise ConfigurationError(f"[[api.keys]] {entry.name!r} is the key of another: give each its own")
            self._keys.append((digest, Key(entry.name, frozenset(entry.allow), entry.channels)))

    def replace(self, settings: Sequence[KeySettings]) -> None:
        """Know these keys alone from now on; raises ConfigurationError, and keeps the old, if they cannot work."""
        self._keys = Keys(settings)._keys
        self.generation += 1

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"Keys({[key.name for _, key in self._keys]})"

    def check(self, headers: Mapping[str, str], scope: Scope | None = None, peer: tuple[str, int] | None = None) -> Key:
        """Returns the key that a request brings, as ``Authorization: Bearer`` or ``X-API-Key``.

        Raises Reject: 401 for none or a wrong one, 429 where its address brings wrong ones all the time (a right one
        passes all the same, lest strangers lock out whoever shares a proxy with them), 403 where none is set or it is
        not for this ``scope``.
        """
        if not self._keys:
            raise Reject(403, NO_KEY)
        given = _given(headers)
        if given is None:
            raise Reject(401, "a key is needed: Authorization: Bearer ...", headers=CHALLENGE)
        digest = hashlib.sha256(given.encode("latin-1", "replace")).digest()
        found = None
        for known, key in self._keys:  # all of them, whichever it is
            if hmac.compare_digest(known, digest):
                found = key
        if found is None:
            if self._failures.are_too_many(peer):
                raise Reject(429, "too many wrong keys from this address", headers={"Retry-After": "60"})
            raise Reject(401, "this key is not known", headers=CHALLENGE)
        if scope is not None:
            found.require(scope)
        return found


class Failures:
    """How many wrong keys came from an address of late; of addresses, the last ones are remembered."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, list[float]] = OrderedDict()

    def are_too_many(self, peer: tuple[str, int] | None) -> bool:
        """Count one more, unless there were too many already; whether there were."""
        address, now = _network("" if peer is None else peer[0]), time.monotonic()
        times = [at for at in self._addresses.get(address, ()) if at > now - FAILURE_WINDOW]
        too_many = len(times) >= MOST_FAILURES
        if not too_many:
            times.append(now)
        self._addresses[address] = times
        self._addresses.move_to_end(address)
        if len(self._addresses) > MOST_ADDRESSES:
            self._addresses.popitem(last=False)
        return too_many


def _network(host: str) -> str:
    """An IPv4 address, or the /64 that an IPv6 address is in, of which everybody has plenty."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return address.exploded[:19]
    return host


def _given(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key") or None


def _digest_of(entry: KeySettings) -> bytes:
    where = f"[[api.keys]] {entry.name!r}"
    given = [value for value in (entry.key, entry.key_file, entry.key_sha256) if value is not None]
    if len(given) != 1:
        raise ConfigurationError(f"{where} has {len(given)} of key, key_file and key_sha256: give exactly one")
    if entry.key_sha256 is not None:
        try:
            digest = bytes.fromhex(entry.key_sha256)
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise ConfigurationError(f"{where}: key_sha256 is not a SHA-256 digest: give 64 hexadecimal digits")
        return digest
    key = entry.key
    if entry.key_file is not None:
        try:
            key = Path(entry.key_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{where}: key_file={entry.key_file!r} cannot be read: {error}") from None
    assert key is not None
    if len(key) < LEAST_LENGTH:
        raise ConfigurationError(
            f"{where} is too short: give {LEAST_LENGTH} characters or more, such as `openssl rand -hex 32` makes"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"{where} has characters that no header field carries: give letters and digits")
    return hashlib.sha256(key.encode()).digest()
