"""``[v1]`` of the configuration file."""

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["V1Settings"]

HOUR = 3600.0  # seconds


class V1Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the clients of fastws.v1."""

    max_channels: Annotated[int, Meta(ge=1, le=100_000, description="channels that one connection may be in")] = 100
    heartbeat: Annotated[
        float, Meta(ge=0, le=HOUR, description="seconds between two signs of life to clients, up to 3,600; 0: none")
    ] = 20
