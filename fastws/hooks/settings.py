"""What ``[hooks]`` in the configuration file may say."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from ..access.secrets import Discreet, without_password
from ..errors import ConfigurationError
from .signing import key_of

__all__ = ["Ask", "HookSettings", "Tell"]

Ask: TypeAlias = Literal["connect", "subscribe", "publish", "call"]
Tell: TypeAlias = Literal[
    "disconnected", "online", "offline", "occupied", "vacated", "connected", "subscribed", "unsubscribed"
]

DAY = 24 * 3600  # seconds
SECRETS = {"secret"}  # values that no message shows

# Each description says what works, as it ends the message about a value that does not.
Url: TypeAlias = Annotated[str, Meta(description="http:// or https://, a host and a path; {event} in it is replaced")]
Secret: TypeAlias = Annotated[str, Meta(description="whsec_ and the base64 of 24 to 64 random bytes")]
File: TypeAlias = Annotated[str, Meta(min_length=1, description="path of a file that holds the secret")]
Asks: TypeAlias = Annotated[
    tuple[Ask, ...], Meta(description="what the backend decides: of connect, subscribe, publish and call")
]
Tells: TypeAlias = Annotated[
    tuple[Tell, ...],
    Meta(
        description="what the backend is told: of disconnected, online, offline, occupied, vacated, connected, "
        "subscribed and unsubscribed"
    ),
]
Field: TypeAlias = Annotated[str, Meta(pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
Fields: TypeAlias = Annotated[tuple[Field, ...], Meta(description="names of the client's header fields to forward")]
Timeout: TypeAlias = Annotated[float, Meta(ge=0.05, le=60, description="seconds for an ask, 0.05 to 60")]
Concurrency: TypeAlias = Annotated[int, Meta(ge=1, le=10_000, description="requests at a time, 1 to 10,000")]
Pending: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000, description="asks that may wait, 0 to 1,000,000")]
RetryFor: TypeAlias = Annotated[
    float, Meta(ge=0, le=DAY, description="seconds that an event is tried before it is dropped, 0 to 86,400")
]
Heartbeat: TypeAlias = Annotated[
    float, Meta(ge=0, le=DAY, description="seconds between two heartbeats, up to 86,400; 0: none")
]
Node: TypeAlias = Annotated[
    str, Meta(max_length=255, description="name of this server, up to 255 characters; by default the host's name")
]


class HookSettings(Discreet, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a backend over HTTP is asked and told. A value that cannot work raises ConfigurationError."""

    url: Url
    secret: Secret | None = None
    secret_file: File | None = None
    ask: Asks = ("connect",)
    tell: Tells = ("disconnected", "online", "offline", "occupied", "vacated")
    headers: Fields = ("cookie", "authorization")
    timeout: Timeout = 3.0
    concurrency: Concurrency = 64
    max_pending: Pending = 10_000
    retry_for: RetryFor = 300
    heartbeat: Heartbeat = 60
    node: Node = ""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            _check(field.name, getattr(self, field.name), field.type)
        host = _host_of(self.url)
        if self.secret is not None and self.secret_file is not None:
            raise ConfigurationError("secret and secret_file are both set: leave one of them out")
        if self.key() is None and not _is_loopback(host):
            shown = without_password(self.url)
            raise ConfigurationError(
                f"url={shown!r} needs a secret, as {host} is not this machine: set secret or secret_file"
            )

    def key(self) -> bytes | None:
        """Returns the key that signs, None without a secret; raises ConfigurationError for a file without one."""
        if self.secret is not None:
            return key_of(self.secret)
        if self.secret_file is None:
            return None
        try:
            text = Path(self.secret_file).read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = (isinstance(error, OSError) and error.strerror) or "it is not text"
            raise ConfigurationError(
                f"secret_file={self.secret_file!r} cannot be read ({why}): give a file that holds whsec_..."
            ) from None
        try:
            return key_of(text.strip())
        except ConfigurationError as error:
            raise ConfigurationError(f"secret_file={self.secret_file!r}: {error}") from None


def _check(name: str, value: Any, type: Any) -> None:
    """msgspec checks what it decodes, and not what is given by keyword."""
    try:
        msgspec.convert(value, type)
    except msgspec.ValidationError:
        shown = "" if name in SECRETS else f"={value!r}"
        raise ConfigurationError(f"{name}{shown} does not work: give {_description(type)}") from None


def _description(type: Any) -> str:
    for part in (type, *getattr(type, "__args__", ())):
        for meta in getattr(part, "__metadata__", ()):
            return str(meta.description)
    raise AssertionError(type)


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url.replace("{event}", "event"))
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s{}\x00-\x1f\x7f]", parts.geturl()):
        raise ConfigurationError(f"url={without_password(url)!r} does not work: give {_description(Url)}")
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
