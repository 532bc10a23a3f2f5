"""``[pusher]`` of the configuration file."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ..access.secrets import Discreet
from ..errors import ConfigurationError

__all__ = ["PusherSettings", "Webhook"]

Webhook: TypeAlias = Literal[
    "channel_occupied", "channel_vacated", "member_added", "member_removed", "client_event", "cache_miss"
]

LEAST_SECRET = 16  # characters; those of Pusher and Reverb have 20
HOUR = 3600


class PusherSettings(Discreet, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One application of Pusher's. A value that cannot work raises ConfigurationError."""

    app_id: Annotated[str | int, Meta(description="id of the application, which is in the paths of the HTTP API")]
    key: Annotated[str, Meta(description="its key, which clients know")]
    secret: Annotated[
        str | None, Meta(description="its secret, of 16 characters or more, which signs: openssl rand -hex 20")
    ] = None
    secret_file: Annotated[str | None, Meta(description="file that holds the secret")] = None
    client_events: Annotated[
        Literal["members", "all", "none"],
        Meta(
            description="who may send client events: members of private and presence channels, all members of channels "
            "(public ones, too), or none"
        ),
    ] = "members"
    activity_timeout: Annotated[
        Annotated[int, Meta(ge=1, le=HOUR)],
        Meta(description="seconds of silence after which client and server ping, up to 3,600"),
    ] = 120
    max_event_size: Annotated[
        Annotated[int, Meta(ge=1, le=16 << 20)], Meta(description="bytes that the data of an event may have")
    ] = 10_240
    events_per_second: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)], Meta(description="client events that a connection may send")
    ] = 10
    max_channels: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)], Meta(description="channels that one connection may be in")
    ] = 1000
    max_connections: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="connections to the application; None: as the server takes")
    ] = None
    webhook_url: Annotated[str, Meta(description="http:// or https:// URL that webhooks are posted to")] = ""
    webhook_events: Annotated[
        tuple[Webhook, ...],
        Meta(
            description="what is posted: of channel_occupied, channel_vacated, member_added, member_removed, "
            "client_event and cache_miss"
        ),
    ] = ("channel_occupied", "channel_vacated", "member_added", "member_removed", "cache_miss")

    def __post_init__(self) -> None:
        for name, value in (("app_id", self.id), ("key", self.key)):
            if not value or not value.isascii() or not value.replace("-", "").replace("_", "").isalnum():
                raise ConfigurationError(f"{name}={value!r} does not work in a path: give letters, digits, - and _")
        if self.webhook_url and not self.webhook_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"webhook_url={self.webhook_url!r} is not a URL: give one that begins with https://"
            )
        self.signing_key()

    @property
    def id(self) -> str:
        """The id of the application as text."""
        return str(self.app_id)

    def signing_key(self) -> bytes:
        """Returns the secret; raises ConfigurationError where there is none that works."""
        if self.secret is not None and self.secret_file is not None:
            raise ConfigurationError("secret and secret_file are both set: leave one of them out")
        secret = self.secret
        if self.secret_file is not None:
            try:
                secret = Path(self.secret_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                why: Any = getattr(error, "strerror", None) or "it is not text"
                raise ConfigurationError(f"secret_file={self.secret_file!r} cannot be read: {why}") from None
        if secret is None:
            raise ConfigurationError("secret is missing: set secret or secret_file")
        if len(secret) < LEAST_SECRET:
            raise ConfigurationError(
                f"secret is too short: give {LEAST_SECRET} characters or more, such as `openssl rand -hex 20` makes"
            )
        return secret.encode()
