"""The connection manager: one per endpoint, who is there and how to reach them."""

import asyncio
import concurrent.futures
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ._core import CHANNEL_KIND, EVERYONE_KIND, USER_KIND, Endpoint, WebSocket
from .config import EndpointOptions
from .errors import ProtocolError
from .listener import HANDLERS, Listener, handler, warn_of_misspelt
from .routing import Template
from .steps import HANDLER_ERRORS, Steps

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ConnectionManager"]

logger = logging.getLogger("fastws.manager")

Connections: TypeAlias = WebSocket | str | Iterable[WebSocket | str]


class ConnectionManager(Endpoint):
    """Knows every connection, channel and user of one endpoint, and sends to them.

    ``Server.endpoint`` makes it. Everything is called on the loop's thread; from another thread only the
    ``..._threadsafe`` methods work, and the others raise RuntimeError. Counts are of the connections addressed.
    """

    def __init__(self, server: "Server", template: Template, listener: Listener, options: EndpointOptions) -> None:
        self.server = server
        self.template = template
        self.listener = listener
        self.options = options
        self._handlers = {name: handler(listener, name) for name in HANDLERS}
        self._opening: dict[WebSocket, tuple[int, str] | None] = {}
        #: The open connections by id, live.
        self.connections: Mapping[str, WebSocket] = _ById(self)
        #: The users who are there, each with the ids of his or her connections, live.
        self.users: Mapping[Hashable, list[str]] = _ByUser(self)
        warn_of_misspelt(listener)

    @property
    def path(self) -> str:
        """The endpoint's path template."""
        return self.template.path

    def __repr__(self) -> str:
        return f"<ConnectionManager {self.path!r}>"

    # -- channels, users, presence

    @property
    def channels(self) -> dict[str, int]:
        """Every channel with its number of subscribers."""
        return self._counts(CHANNEL_KIND)

    def subscribers(self, channel: str) -> list[WebSocket]:
        """The connections in a channel."""
        return self._members(CHANNEL_KIND, channel)

    def presence(self, channel: str) -> dict[Hashable, int]:
        """Who is in a channel: each user once, with the number of his or her connections (devices) there."""
        return dict(Counter(ws.user for ws in self.subscribers(channel) if ws.user is not None))

    def subscribe(self, channel: str, ws: WebSocket) -> int:
        """Have a connection join a channel; the number of subscribers. Twice is once.

        Raises TypeError for a name that is no str, ValueError for a connection of another endpoint.
        """
        count, joined, is_new = self._join(CHANNEL_KIND, _channel_name(channel), ws)
        if joined:
            self._run(self._tell_joined(ws, channel, count, is_new))
        return count

    def unsubscribe(self, channel: str, ws: WebSocket) -> int:
        """Have a connection leave a channel; the number of subscribers that stay."""
        if self._leave(_channel_name(channel), ws):
            self._run(self._tell_left(ws, channel))
        return self._count(channel)

    def unsubscribe_all(self, ws: WebSocket) -> None:
        """Have a connection leave all of its channels."""
        if ws.is_open:
            for channel in ws.channels:
                self.unsubscribe(channel, ws)

    # -- from other threads

    def broadcast_threadsafe(
        self,
        channel: str,
        message: Any,
        *,
        to: Connections | None = None,
        users: Any = None,
        exclude: Connections | None = None,
    ) -> "concurrent.futures.Future[int]":
        """``broadcast`` from any thread. Raises RuntimeError when the server does not run."""
        return self._on_loop(lambda: self.broadcast(channel, message, to=to, users=users, exclude=exclude))

    def send_threadsafe(self, ids: Connections, message: Any) -> "concurrent.futures.Future[int]":
        """``send`` from any thread. Raises RuntimeError when the server does not run."""
        return self._on_loop(lambda: self.send(ids, message))

    def _on_loop(self, call: Callable[[], int]) -> "concurrent.futures.Future[int]":
        future: concurrent.futures.Future[int] = concurrent.futures.Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)

        self.server.loop.call_soon_threadsafe(run)
        return future

    # -- the life of a connection, as the engine tells it

    def _run(self, steps: Steps) -> None:
        self.server._runner.run(steps)

    def _call(self, ws: WebSocket, name: str, *arguments: Any) -> Steps:
        """Call a handler, if there is one; the result. One that raises costs the connection and nothing else."""
        method = self._handlers[name]
        if method is None:
            return None
        try:
            return (yield method(*arguments))
        except HANDLER_ERRORS as error:
            self._handler_failed(ws, error)
            return False

    def _coming(self, ws: WebSocket, channel: str | None) -> Steps:
        """From the accepted handshake to the first message."""
        self._opening[ws] = None
        if (yield from self._call(ws, "on_open", ws)) is False:
            ws.close(1008, "refused by the server")
        user = ws.user
        if user is not None and self._join(USER_KIND, user, ws)[2]:
            yield from self._call(ws, "on_user_online", user)
        if channel is not None:
            count, joined, is_new = self._join(CHANNEL_KIND, channel, ws)
            if joined:
                yield from self._tell_joined(ws, channel, count, is_new)
        ws._ready()
        end = self._opening.pop(ws)
        if end is not None:
            yield from self._going(ws, *end)

    def _tell_joined(self, ws: WebSocket, channel: str, count: int, is_new: bool) -> Steps:
        if is_new:
            yield from self._call(ws, "on_channel_open", channel)
        yield from self._call(ws, "on_subscribe", ws, channel, count)

    def _tell_left(self, ws: WebSocket, channel: str) -> Steps:
        yield from self._call(ws, "on_unsubscribe", ws, channel, self._count(channel))
        if self._told(CHANNEL_KIND, channel):
            yield from self._call(ws, "on_channel_close", channel)

    def _going(self, ws: WebSocket, code: int, reason: str) -> Steps:
        """The connection is over and has left everything: tell the listener."""
        yield from self._call(ws, "on_close", ws, code, reason)
        for kind, name in sorted(ws._left(), key=lambda left: left[0]):
            if kind == CHANNEL_KIND:
                yield from self._tell_left(ws, name)
            elif self._told(USER_KIND, name):
                yield from self._call(ws, "on_user_offline", name)
        ws._forget()

    def _closed(self, ws: WebSocket, code: int, reason: str) -> None:
        logger.debug("connection %s closed: %d %s", ws.id, code, reason, extra={"connection": ws.id, "code": code})
        if ws in self._opening:
            self._opening[ws] = code, reason  # on_open still runs: its end comes first
        else:
            self._run(self._going(ws, code, reason))

    def _await_message(self, ws: WebSocket, awaitable: Any) -> None:
        self.server._runner.spawn(self._handle(ws, awaitable))

    async def _handle(self, ws: WebSocket, awaitable: Any) -> None:
        result = None
        try:
            result = await awaitable
        except HANDLER_ERRORS as error:
            if self.server._stopping and isinstance(error, asyncio.CancelledError):
                raise
            self._handler_failed(ws, error)
        ws._handled(result)

    def _handler_failed(self, ws: WebSocket, error: BaseException) -> None:
        logger.error(
            "a handler of %s failed for connection %s", self.path, ws.id, exc_info=error, extra={"connection": ws.id}
        )
        self._tell_error(ws, error)
        ws.close(1011, "internal error")

    def _protocol_failed(self, ws: WebSocket, error: ProtocolError) -> None:
        logger.warning(
            "connection %s broke the protocol: %s", ws.id, error, extra={"connection": ws.id, "code": error.code}
        )
        self._tell_error(ws, error)

    def _tell_error(self, ws: WebSocket, error: BaseException) -> None:
        def steps() -> Steps:
            on_error = self._handlers["on_error"]
            if on_error is not None:
                try:
                    yield on_error(ws, error)
                except HANDLER_ERRORS:
                    logger.exception("on_error of %s failed", self.path, extra={"connection": ws.id})

        self._run(steps())


class _ById(Mapping[str, WebSocket]):
    """The open connections of a manager by id."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    def __getitem__(self, id: str) -> WebSocket:
        ws = self._manager._find(id)
        if ws is None:
            raise KeyError(id)
        return ws

    def __iter__(self) -> Iterator[str]:
        return iter([ws.id for ws in self._manager._members(EVERYONE_KIND, None)])

    def __len__(self) -> int:
        return self._manager.connection_count

    def __repr__(self) -> str:
        return repr(dict(self))


class _ByUser(Mapping[Hashable, list[str]]):
    """The ids of a manager's connections by user."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    def __getitem__(self, user: Hashable) -> list[str]:
        ids = [ws.id for ws in self._manager._members(USER_KIND, user)]
        if not ids:
            raise KeyError(user)
        return ids

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._manager._counts(USER_KIND))

    def __len__(self) -> int:
        return len(self._manager._counts(USER_KIND))

    def __repr__(self) -> str:
        return repr(dict(self))


def _channel_name(channel: str) -> str:
    if not isinstance(channel, str):
        raise TypeError(f"a channel is named by a str, not {channel!r}")
    return channel
