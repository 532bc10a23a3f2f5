"""The API's operations on what channels keep: looking, deleting, and sending that waits for the store."""

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import UNSET

from ..errors import BackplaneError, Reject
from ..hub import Hub, Published
from ..logs import Entry, Position
from . import asked, shapes
from .app import BadRequest, WebRequest

__all__ = ["Logs", "check_kept"]


class Sent(NamedTuple):
    """What is to be appended to the log of a channel."""

    message: Any
    latest_key: str | None
    id: str | None
    endpoint: str | None


class Logs:
    """What the API does with channels that keep what was sent. ``check`` raises for a channel that is not allowed."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def append(self, channel: str, sent: Sent) -> Published:
        """Send to all members of a channel, and wait until the store has it."""
        publish = self._hub.publish(channel, sent.message, key=sent.latest_key, id=sent.id, endpoint=sent.endpoint)
        try:
            return await publish
        except BackplaneError:
            raise Reject(503, "the store did not answer: the message may not have been stored") from None

    async def look(self, channel: str, request: WebRequest) -> shapes.Log:
        """What a channel keeps."""
        keeper, limit = self._keeper(channel, request), asked.limit(request, "log")
        since = request.query.get("since")
        try:
            position = None if since is None else Position.parse(since)
        except ValueError as error:
            raise BadRequest(str(error), "since") from None
        page = await answered(lambda: keeper.history(channel, position, limit))
        entries = [log_entry(entry) for entry in page.entries]
        return shapes.Log(channel, entries, str(page.position), page.recovered, page.reason)

    async def clear(self, channel: str, request: WebRequest) -> shapes.Done:
        """Have a channel forget."""
        keeper = self._keeper(channel, request)
        return shapes.Done(str(await answered(lambda: keeper.clear(channel))))

    async def delete(self, channel: str, request: WebRequest) -> shapes.Done:
        """Remove a key."""
        keeper = self._keeper(channel, request)
        if keeper.keeps(channel) != "latest":
            raise Reject(404, "this channel keeps messages without keys")
        return shapes.Done(str(await answered(lambda: keeper.delete(channel, request.params["key"]))))

    def _keeper(self, channel: str, request: WebRequest) -> Any:
        try:
            keeper = self._hub.keeper(channel, request.query.get("endpoint"))
        except ValueError as error:
            raise BadRequest(str(error), "endpoint") from None
        if keeper is None:
            raise Reject(404, "this channel keeps nothing")
        return keeper


async def answered(ask: Callable[[], Any]) -> Any:
    """Returns what the store says; raises Reject(503) where it is away."""
    try:
        return await ask()
    except BackplaneError:
        raise Reject(503, "the store did not answer") from None


def check_kept(kept: str | None, latest_key: str | None, compress: bool | None) -> None:
    """Raises Reject(409) for a key where there must be none, or none where there must be one, and for ``compress``."""
    if kept == "latest" and latest_key is None:
        raise Reject(409, "this channel keeps the latest message of each key: latest_key is needed")
    if kept != "latest" and latest_key is not None:
        raise Reject(409, "latest_key is for channels of latest messages, and for all of their members")
    if kept is not None and compress is not None:
        raise Reject(409, "this channel has a log, whose messages are compressed by their size: leave compress out")


def log_entry(entry: Entry) -> shapes.LogEntry:
    """Returns an entry as the API says it."""
    said: dict[str, Any] = {} if entry.key is None else {"key": entry.key}
    if entry.message is None:
        said["deleted"] = True
    elif isinstance(entry.message, bytes):
        said["base64"] = base64.b64encode(entry.message).decode()
    else:
        said["message"] = entry.message
    return shapes.LogEntry(str(entry.position), **{"message": UNSET, **said})
