"""What a client hears, and those who listen."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Emitter", "Member", "Message", "Subscribed"]

logger = logging.getLogger("fastws.client")


@dataclass(frozen=True, slots=True)
class Message:
    """What was published to a channel, whispered to us in it (then there is `to`), or sent to us directly."""

    message: Any
    """JSON, or bytes."""
    channel: str | None
    user: Any
    """Whose it is; None for the HTTP API and for anonymous connections."""
    id: str | None
    """The connection's that sent it."""
    time: int
    """Milliseconds since 1970; 0 for a key that was deleted."""
    position: str | None = None
    """Its place in what the channel keeps; None for what it does not keep."""
    to: tuple[Any, ...] | None = None
    key: str | None = None
    """Of which this is the newest value, in a channel that keeps the latest."""
    deleted: bool = False
    """Whether the key is gone instead; then there is no message."""

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Message:
        """Returns what a frame holds."""
        is_deleted = frame.get("deleted", False)
        sender = frame.get("from") or {}
        return cls(
            None if is_deleted else body_of(frame),
            frame.get("channel"),
            sender.get("user"),
            sender.get("id"),
            frame.get("time", 0),
            frame.get("position"),
            tuple(frame["to"]) if frame["type"] == "whisper" else None,
            frame.get("key"),
            is_deleted,
        )


def body_of(frame: Mapping[str, Any]) -> Any:
    return base64.b64decode(frame["base64"]) if "base64" in frame else frame["message"]


@dataclass(frozen=True, slots=True)
class Member:
    """A user in a channel, `since` (Unix time in seconds), on so many `devices`."""

    user: Any
    since: float
    devices: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """We are in the channel, from now on or again.

    `recovered`: the `count` messages that follow are all that were missed. Otherwise `reason` says why the application
    has to load what it shows. `snapshot`: those that follow are all keys that there are; any others are gone.
    """

    channel: str
    subscribers: int
    log: str | None
    position: str | None
    recovered: bool
    reason: str | None = None
    count: int = 0
    snapshot: bool = False
    message: Any = None
    """What the backend had to say of the channel."""


class Emitter:
    """Calls listeners."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable[..., object]]] = {}

    def on(self, event: str, listener: Callable[..., object]) -> Callable[[], None]:
        """Call `listener` at each event from now on; returns a function that ends it."""
        listeners = self._listeners.setdefault(event, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def _emit(self, event: str, *values: Any) -> bool:
        """Returns whether none raised; one that does keeps nothing from the others."""
        is_well = True
        for listener in list(self._listeners.get(event, ())):
            try:
                listener(*values)
            except Exception:
                logger.exception("a listener to %r failed", event)
                is_well = False
        return is_well

    def _hears(self, event: str) -> bool:
        return bool(self._listeners.get(event))
