"""Channels for ASGI applications: fan-out by the engine instead of a loop of `send_text`."""

import asyncio
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

from .._core import Request, WebSocket
from ..manager import ConnectionManager, Connections
from ..presence import Presence

__all__ = ["EXTENSION", "Channels", "channels"]

EXTENSION = "fastws"  # in scope["extensions"]
NEEDED = "this needs fastws (fastws serve app:app)"


class Caller(Protocol):
    """The WebSocket for which `channels` was called."""

    @property
    def request(self) -> Request:
        """Its handshake."""

    @property
    def ws(self) -> WebSocket | None:
        """Its connection, from the 101 on."""


def channels(connection: Any) -> "Channels":
    """Returns the channels of the server that runs this application, as one connection or request sees them.

    Takes a WebSocket or a request of any framework, or its ``scope``. Raises RuntimeError under another server.
    """
    scope = connection if isinstance(connection, Mapping) else getattr(connection, "scope", None)
    found = (scope.get("extensions") or {}).get(EXTENSION) if isinstance(scope, Mapping) else None
    if found is None:
        raise RuntimeError(NEEDED)
    return Channels(found["manager"], found.get("conversation"))


class Channels:
    """What `channels` returns. All WebSockets of the application are in one ConnectionManager, `manager`.

    `id`, `user`, `subscribe` and `unsubscribe` are about the WebSocket that it was made for, and raise RuntimeError for
    a plain request.
    """

    def __init__(self, manager: ConnectionManager, caller: Caller | None = None) -> None:
        self.manager = manager
        self._caller = caller

    def __repr__(self) -> str:
        return f"<Channels {self.manager!r} {'of a request' if self._caller is None else self._caller.ws!r}>"

    @property
    def id(self) -> str:
        """The connection's id, for ``to`` and ``exclude``; raises RuntimeError before it is accepted."""
        return self._ws.id

    @property
    def user(self) -> Any:
        """Who the connection belongs to, any hashable value; None until somebody says so.

        It may be set once, before the accept or after it: raises RuntimeError else.
        """
        return self._request.user

    @user.setter
    def user(self, user: Hashable) -> None:
        request, ws = self._request, None if self._caller is None else self._caller.ws
        if request.user == user:
            return
        if request.user is not None:
            raise RuntimeError(f"the user is {request.user!r} already: it can be set once")
        hash(user)
        if ws is None:
            request.user = user
        else:
            self.manager.life.identify(ws, user)

    def subscribe(self, channel: str) -> int:
        """Join a channel; joining again changes nothing. Returns its number of subscribers."""
        return self.manager.subscribe(channel, self._ws)

    def unsubscribe(self, channel: str) -> int:
        """Leave a channel. Returns the number of subscribers that stay."""
        return self.manager.unsubscribe(channel, self._ws)

    def broadcast(
        self,
        channel: str,
        message: Any,
        *,
        to: Connections | None = None,
        users: Hashable | Iterable[Hashable] = None,
        exclude: Connections | None = None,
    ) -> int:
        """Send a message to the members of a channel, as `ConnectionManager.broadcast` does. Returns how many.

        ``exclude="self"`` leaves this connection out. May be called in any thread, such as that of a ``def`` route.
        """
        if exclude == "self":
            exclude = self._ws
        if _is_on(self.manager.server.loop):
            return self.manager.broadcast(channel, message, to=to, users=users, exclude=exclude)
        return self.manager.broadcast_threadsafe(channel, message, to=to, users=users, exclude=exclude).result()

    def presence(self, channel: str) -> dict[Hashable, Presence]:
        """Returns who is in a channel: each user once, with the time of joining and the number of devices."""
        return self.manager.presence(channel)

    @property
    def _request(self) -> Request:
        if self._caller is None:
            raise RuntimeError("a plain request has no user and is in no channel: this needs a WebSocket")
        return self._caller.request

    @property
    def _ws(self) -> WebSocket:
        request = self._request
        ws = None if self._caller is None else self._caller.ws
        if ws is None:
            raise RuntimeError(f"{request!r} is not accepted yet: accept it first")
        return ws


def _is_on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
