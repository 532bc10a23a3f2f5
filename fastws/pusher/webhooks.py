"""Webhooks in Pusher's form, which server libraries verify, by the outbox of hooks."""

import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from ..hooks.outbox import Outbox
from ..hooks.posting import Figures, Poster, encode
from .settings import PusherSettings
from .signing import Application

__all__ = ["Webhooks"]

RETRY_FOR = 300.0  # seconds, as Pusher tries
AT_STOP = 5.0  # seconds that a stop waits for the backend


class Webhooks:
    """Posts what happens in channels to the backend, in order and at least once; ``async with`` delivers the rest."""

    def __init__(self, settings: PusherSettings, application: Application) -> None:
        self._application = application
        self._wanted = frozenset(settings.webhook_events)
        self._poster = Poster(settings.webhook_url, self._signed)
        self._outbox = Outbox(self._poster, RETRY_FOR, body_of)

    @property
    def figures(self) -> Figures:
        """What happened so far."""
        return self._poster.figures

    @property
    def pending(self) -> int:
        """How many events wait."""
        return self._outbox.waiting

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._outbox.stop(AT_STOP)
        await self._poster.close()

    def tell(self, name: str, channel: str, **more: Any) -> None:
        """Have an event delivered, if it is one that the backend wants. Never waits."""
        if name not in self._wanted:
            return
        if "data" in more:
            more["data"] = text_of(more["data"])
        self._outbox.start()
        self._outbox.add(name, {"name": name, "channel": channel, **more})

    def _signed(self, id: str, body: bytes) -> dict[str, str]:
        return {"X-Pusher-Key": self._application.key, "X-Pusher-Signature": self._application.sign(body)}


def body_of(events: Sequence[bytes]) -> bytes:
    """Returns the body of a webhook."""
    return encode({"time_ms": time.time_ns() // 1_000_000, "events": [msgspec.Raw(event) for event in events]})


def text_of(data: msgspec.Raw) -> str:
    """Returns the data of a client event as a string: the one that it is, or its JSON."""
    raw = bytes(data)
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()
