"""Signatures as Standard Webhooks has them (standardwebhooks.com); there are libraries for most languages."""

import binascii
import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping

from ..errors import ConfigurationError

__all__ = ["TOLERANCE", "key_of", "signed", "signer", "verify"]

PREFIX = "whsec_"
TOLERANCE = 300  # seconds between signature and receipt


def key_of(secret: str) -> bytes:
    """Returns the key that a secret holds: ``whsec_`` and the base64 of 24 to 64 bytes.

    Raises ConfigurationError for any other; its message does not repeat the secret.
    """
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True) if secret.startswith(PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ConfigurationError(
            f"the secret does not work: give {PREFIX} and the base64 of 24 to 64 random bytes, "
            "such as `openssl rand -base64 32` makes"
        )
    return key


def signed(key: bytes, id: str, seconds: int, body: bytes) -> dict[str, str]:
    """Returns the header fields that sign a body sent under that id at that Unix time."""
    digest = hmac.digest(key, b"%b.%d.%b" % (id.encode(), seconds, body), "sha256")
    signature = "v1," + b64encode(digest).decode()
    return {"webhook-id": id, "webhook-timestamp": str(seconds), "webhook-signature": signature}


def signer(key: bytes | None) -> Callable[[str, bytes], dict[str, str]]:
    """Returns what signs bodies that are sent now; without a key, they are only named."""

    def sign(id: str, body: bytes) -> dict[str, str]:
        if key is None:
            return {"webhook-id": id}  # by it a backend knows what it has seen
        return signed(key, id, int(time.time()), body)

    return sign


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> bool:
    """Returns whether whoever knows the secret signed this body, not longer than five minutes ago.

    For backends in Python. ``headers`` are those of the request, by lower-case name or in a mapping that takes any
    case; ``body`` is what came, byte for byte.
    """
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE:
        return False
    expected = signed(key_of(secret), headers.get("webhook-id", ""), int(timestamp), body)["webhook-signature"]
    given = headers.get("webhook-signature", "").split(" ")  # several, while a secret is being replaced
    return any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in given)
