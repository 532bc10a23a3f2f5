"""Signatures of Pusher's: HMAC-SHA256 with the application's secret, in hexadecimal, compared in constant time."""

import hashlib
import hmac
import time
from collections.abc import Mapping

from ..errors import FastWSError

__all__ = ["TOLERANCE", "Application", "Unauthorized"]

TOLERANCE = 600  # seconds between the timestamp of a request and its receipt
VERSION = "1.0"


class Unauthorized(FastWSError):
    """A signature that does not hold; the message says why, and no more than the peer knows already."""


class Application:
    """The key and the secret of an application: what was signed with them, and what was not."""

    def __init__(self, key: str, secret: bytes) -> None:
        self.key = key
        self._secret = secret

    def __repr__(self) -> str:
        return f"<Application {self.key!r}>"

    def sign(self, content: bytes) -> str:
        """Returns the signature of what is sent, in hexadecimal."""
        return hmac.digest(self._secret, content, "sha256").hex()

    def has_signed(self, auth: str | None, *parts: str) -> bool:
        """Returns whether ``auth`` is ``key:signature``, where what is signed is the parts with colons between them."""
        key, _, signature = (auth or "").partition(":")
        expected = self.sign(":".join(parts).encode("utf-8", "surrogatepass"))
        return _same(signature, expected) & _same(key, self.key)

    def check_request(self, method: str, paths: tuple[str, ...], query: Mapping[str, str]) -> None:
        """Raises Unauthorized for a request of the HTTP API that the application's backend has not signed just now.

        ``paths`` are the ways in which its path may have been written when it was signed. What is signed has the body's
        digest, so that the body need not be there yet: see `check_body`.
        """
        if not _same(query.get("auth_key", ""), self.key):
            raise Unauthorized("auth_key is not that of this application")
        if query.get("auth_version") != VERSION:
            raise Unauthorized(f"auth_version must be {VERSION}")
        timestamp = query.get("auth_timestamp", "")
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise Unauthorized("auth_timestamp must be the Unix time in seconds")
        if abs(time.time() - int(timestamp)) > TOLERANCE:
            raise Unauthorized(f"auth_timestamp is not within {TOLERANCE} s of {int(time.time())}: look at the clocks")
        signed = sorted((name.lower(), value) for name, value in query.items() if name != "auth_signature")
        fields = "&".join(f"{name}={value}" for name, value in signed)
        given = query.get("auth_signature", "")
        if not any(_same(given, self.sign(f"{method}\n{path}\n{fields}".encode())) for path in paths):
            raise Unauthorized("auth_signature is not that of this request")

    def check_body(self, query: Mapping[str, str], body: bytes) -> None:
        """Raises Unauthorized for a body that is not the one of the signed request."""
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if (body or "body_md5" in query) and not _same(query.get("body_md5", ""), digest):
            raise Unauthorized("body_md5 is not that of the body")


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
