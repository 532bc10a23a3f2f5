"""What the bodies of Pusher's HTTP API hold."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from .names import MOST_NAME

__all__ = ["MOST_BATCH", "MOST_CHANNELS", "Batch", "BatchEvent", "Event"]

MOST_CHANNELS = 100  # of an event
MOST_BATCH = 10  # events

# The events that begin with these are the protocol's own.
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MOST_NAME, pattern="^(?!pusher:|pusher_internal:)")]


class BatchEvent(msgspec.Struct, kw_only=True, gc=False):
    """An event to one channel. ``data`` is a string that clients get as it is; ``info`` is what to answer of it."""

    name: Name
    data: str
    channel: str
    socket_id: str | None = None
    info: str | None = None


class Event(msgspec.Struct, kw_only=True, gc=False):
    """An event to one channel or several."""

    name: Name
    data: str
    channel: str | None = None
    channels: Annotated[list[str], Meta(min_length=1, max_length=MOST_CHANNELS)] | None = None
    socket_id: str | None = None
    info: str | None = None


class Batch(msgspec.Struct, kw_only=True, gc=False):
    """Several events."""

    batch: Annotated[list[BatchEvent], Meta(max_length=MOST_BATCH)]
