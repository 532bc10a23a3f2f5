"""Pusher's HTTP API, which its server libraries call: ``/apps/{app_id}/...``."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import unquote

import msgspec

from ..answers import Answer
from ..backplane.base import BackplaneError
from ..errors import Reject
from ..web.app import BadRequest, Web, WebRequest
from ..web.asked import fault as fault_of
from .listener import PusherListener
from .names import channel_fault, is_cached, is_presence
from .shapes import MOST_BATCH, Batch, BatchEvent, Event
from .signing import Unauthorized

__all__ = ["API"]

APP = "/apps/{app_id}"
TERMINATE = "/users/{user_id}/terminate_connections"
MARGIN = 64 * 1024  # bytes of a body beside the data of its events
ESCAPED = 6  # bytes that JSON may take for one
TERMINATED = 4009, "You have been disconnected by the app."

Handler: TypeAlias = Callable[[WebRequest, bytes], Any]


class API:
    """The routes of one application."""

    def __init__(self, listener: PusherListener) -> None:
        self._listener = listener
        self._settings = listener.settings
        self._decoders = {kind: msgspec.json.Decoder(kind) for kind in (Event, Batch)}

    def add_to(self, web: Web) -> None:
        """Serve the routes."""
        routes: list[tuple[str, str, Handler, int]] = [
            ("POST", f"{APP}/events", self._events, 1),
            ("POST", f"{APP}/batch_events", self._batch, MOST_BATCH),
            ("GET", f"{APP}/channels", self._channels, 0),
            ("GET", f"{APP}/channels/{{channel}}", self._channel, 0),
            ("GET", f"{APP}/channels/{{channel}}/users", self._users, 0),
            ("GET", f"{APP}/connections", self._connections, 0),
            ("POST", f"{APP}{TERMINATE}", self._terminate, 0),
            ("POST", TERMINATE, self._terminate, 0),  # as Pusher's library for Python has it (3.3.4)
        ]
        for method, path, handler, events in routes:
            limit = events * ESCAPED * self._settings.max_event_size + MARGIN
            web.add(method, path, partial(self._answer, handler, limit))

    async def _answer(self, handler: Handler, limit: int, request: WebRequest) -> Answer:
        """Answer a request that the application's backend has signed."""
        if request.params.get("app_id", self._settings.id) != self._settings.id:
            raise Reject(404, "there is no application with this id")
        application, query = self._listener.application, request.query
        try:
            application.check_request(request.method, (request.raw_path, unquote(request.raw_path)), query)
            body = await request.body(limit)
            application.check_body(query, body)
        except Unauthorized as unauthorized:
            raise Reject(401, str(unauthorized)) from None
        answer = handler(request, body)
        try:
            return Answer(200, (await answer) if asyncio.iscoroutine(answer) else answer)
        except BackplaneError:
            raise Reject(503, "it is not known now what is on other nodes", headers={"Retry-After": "1"}) from None

    def _decoded(self, body: bytes, kind: Any) -> Any:
        try:
            return self._decoders[kind].decode(body)
        except msgspec.ValidationError as error:
            raise BadRequest(*fault_of(str(error)), status=422) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None

    # -- events

    def _events(self, request: WebRequest, body: bytes) -> Awaitable[dict[str, Any]] | dict[str, Any]:
        asked: Event = self._decoded(body, Event)
        if (asked.channel is None) == (asked.channels is None):
            raise BadRequest("either channel or channels is needed", "$.channels", status=422)
        channels = asked.channels if asked.channel is None else [asked.channel]
        assert channels is not None
        self._check(asked.data, asked.socket_id, channels)
        for channel in dict.fromkeys(channels):
            self._listener.trigger(channel, asked.name, asked.data, socket_id=asked.socket_id)
        return {} if asked.info is None else self._informed(channels, asked.info)

    async def _informed(self, channels: Iterable[str], info: str) -> dict[str, Any]:
        return {"channels": {channel: await self._info(channel, info) for channel in channels}}

    async def _batch(self, request: WebRequest, body: bytes) -> dict[str, Any]:
        """All of it is looked through before any of it is sent."""
        events: list[BatchEvent] = self._decoded(body, Batch).batch
        for each in events:
            self._check(each.data, each.socket_id, (each.channel,))
        for each in events:
            self._listener.trigger(each.channel, each.name, each.data, socket_id=each.socket_id)
        if all(each.info is None for each in events):
            return {}
        return {"batch": [{} if each.info is None else await self._info(each.channel, each.info) for each in events]}

    def _check(self, data: str, socket_id: str | None, channels: Iterable[str]) -> None:
        if len(data) > self._settings.max_event_size or len(data.encode()) > self._settings.max_event_size:
            raise Reject(413, f"the data of an event has up to {self._settings.max_event_size:,} bytes")
        for channel in channels:
            self._check_channel(channel)

    def _check_channel(self, channel: str) -> None:
        fault = channel_fault(channel)
        if fault:
            raise BadRequest(f"{channel[:64]!r}: {fault}", "$.channel", status=422)

    # -- who is there

    def _channels(self, request: WebRequest, body: bytes) -> Any:
        prefix, info = request.query.get("filter_by_prefix", ""), request.query.get("info", "")
        names = [name for name in self._listener.manager.channels if name.startswith(prefix)]
        return self._informed(names, info)

    async def _channel(self, request: WebRequest, body: bytes) -> dict[str, Any]:
        channel = request.params["channel"]
        self._check_channel(channel)
        return await self._info(channel, "occupied," + request.query.get("info", ""))

    async def _info(self, channel: str, info: str) -> dict[str, Any]:
        """What was asked of a channel, as far as it has that."""
        asked, found = set(info.split(",")), dict[str, Any]()
        count = self._listener.manager._count(channel)
        if "occupied" in asked:
            found["occupied"] = count > 0
        if "user_count" in asked and is_presence(channel):
            found["user_count"] = len([*await self._listener.rooms.users(channel)])
        if "subscription_count" in asked:
            found["subscription_count"] = count
        if "cache" in asked and is_cached(channel):
            cached = self._listener.cache.get(channel)
            found["cache"] = None if cached is None else {"data": cached.data, "ttl": cached.left}
        return found

    async def _users(self, request: WebRequest, body: bytes) -> dict[str, Any]:
        channel = request.params["channel"]
        self._check_channel(channel)
        if not is_presence(channel):
            raise BadRequest("only presence channels have users")
        return {"users": [{"id": user_id} for user_id in await self._listener.rooms.users(channel)]}

    def _connections(self, request: WebRequest, body: bytes) -> dict[str, Any]:
        return {"connections": self._listener.manager.connection_count}

    def _terminate(self, request: WebRequest, body: bytes) -> dict[str, Any]:
        self._listener.manager.close_user(request.params["user_id"], *TERMINATED)
        return {}
