"""The connection manager of an endpoint: who is connected, and how to reach them."""

import concurrent.futures
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ._core import (
    CHANNEL_KIND,
    EVERYONE_KIND,
    SESSION_KIND,
    USER_KIND,
    Endpoint,
    WebSocket,
    check_close,
    many,
)
from .config import EndpointOptions
from .life.connection import Life
from .life.steps import Runner
from .listener import Listener, warn_of_misspelt
from .presence import EVERY_VIEWER, Presence
from .routing import Template

if TYPE_CHECKING:
    from .cluster.views import Cluster

__all__ = ["ConnectionManager"]

Connections: TypeAlias = WebSocket | str | Iterable[WebSocket | str]


class AnyServer(Protocol):
    """The parts of `Server` that a manager exposes."""

    state: SimpleNamespace

    @property
    def host(self) -> str:
        """The address it listens on."""

    @property
    def port(self) -> int:
        """The port it listens on."""

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop it runs on; raises RuntimeError if it is not running."""

    @property
    def is_ready(self) -> bool:
        """Whether it accepts connections."""


class ConnectionManager(Endpoint):
    """Knows every connection, channel and user of one endpoint, and sends to them.

    ``Server.endpoint`` creates it. Call its methods on the loop's thread; from another thread only the
    ``..._threadsafe`` methods work, and the others raise RuntimeError. A returned count is the number of connections
    addressed.
    """

    def __init__(
        self,
        server: AnyServer,
        template: Template,
        listener: Listener,
        options: EndpointOptions,
        runner: Runner,
    ) -> None:
        self.server = server
        self.template = template
        self.listener = listener
        #: Where the engine reports what happens to connections; not for applications.
        self.life: Life = Life(self, template, listener, options, runner)
        #: A live view of the open connections by id.
        self.connections: Mapping[str, WebSocket] = _ById(self)
        #: A live view of the connected users, each with the ids of their connections.
        self.users: Mapping[Hashable, list[str]] = _ByUser(self)
        warn_of_misspelt(listener)

    @property
    def options(self) -> EndpointOptions:
        """The options of this endpoint."""
        return self.life.options

    @property
    def path(self) -> str:
        """The endpoint's path template."""
        return self.template.path

    def __repr__(self) -> str:
        return f"<ConnectionManager {self.path!r}>"

    # -- logs, which `ClusterManager` has: those of an endpoint with `logs`, or of a server with a backplane

    @property
    def reaches_others(self) -> bool:
        """Whether a channel may have members, or a log, though nobody is in it here."""
        return False

    def keeps(self, channel: str) -> str | None:
        """Returns what a channel keeps: "history", "latest", or None."""
        return None

    def enveloped(self, channel: str, message: Any, sender: Any = None) -> Any:
        """Returns what members get of a message that a `Hub`, or the channel's log, sends; ``sender`` is a `Sender`."""
        wrap = getattr(self.listener, "envelope", None)
        return message if wrap is None else wrap(channel, message, sender)

    def listening(self, channel: str) -> "Future[None] | None":
        """Returns what to wait for, so that a newcomer to a channel gets what others say from then on; or None."""
        return None

    # -- what a hub says to other nodes, where a `ClusterManager` knows some

    def send_elsewhere(
        self,
        message: Any,
        *,
        users: Iterable[Any] = (),
        to: Iterable[str] = (),
        exclude: Iterable[str] = (),
        compress: bool | None = None,
    ) -> None:
        """Send to connections on other nodes that are named by user or by id; each gets it once."""

    def kick_elsewhere(self, do: str, channel: str, *, users: Iterable[Any] = (), to: Iterable[str] = ()) -> None:
        """Have connections on other nodes join ("subscribe") or leave ("unsubscribe") a channel."""

    def close_elsewhere(self, channel: str | None, to: Iterable[str], code: int, reason: str) -> None:
        """Close connections on other nodes by channel and by id."""

    async def flush(self) -> None:
        """Wait until the store has all that this server said before; without one there is nothing to wait for."""

    @property
    def cluster(self) -> "Cluster":
        """What is true on all nodes together, as the store has it."""
        from .cluster.views import Cluster

        return Cluster(self)

    # -- channels, users, presence

    @property
    def channels(self) -> dict[str, int]:
        """Every channel and its number of subscribers."""
        return self._counts(CHANNEL_KIND)

    def subscribers(self, channel: str) -> list[WebSocket]:
        """Returns the connections in a channel."""
        return self._members(CHANNEL_KIND, channel)

    def presence(self, channel: str, *, viewer: Hashable = EVERY_VIEWER) -> dict[Hashable, Presence]:
        """Returns who is in a channel: each user once, with their join time and their number of devices there.

        With a ``viewer`` (None: a connection without a user), only the users whom that viewer may see. On a server with
        a backplane these are the people of all nodes where the channel is watched or matches the option ``presence``,
        elsewhere those of this node; see `Cluster.presence`.
        """
        people = self.life.company.people.of(channel)
        if viewer is EVERY_VIEWER:
            return people
        return {user: presence for user, presence in people.items() if self.sees(viewer, user)}

    def watch_presence(self, channel: str) -> None:
        """Tell the members of a channel who joins and leaves, until `unwatch_presence`. Watching twice changes nothing.

        They get JSON texts ``{"type": "presence", "channel": ..., "event": ...}``. The event is "list" for a connection
        that joins (``users``: each with ``user``, ``since`` and ``devices``), "join" (``user``, ``since``) when another
        user's first device joins, and "leave" (``user``) when the last has left, after ``offline_after``. Members are
        told only of users whom they may see (`Listener.can_see`).
        """
        self._check_thread()
        self.life.company.notices.watch(_channel_name(channel))

    def unwatch_presence(self, channel: str) -> None:
        """Stop telling the members of a channel who joins and leaves."""
        self._check_thread()
        self.life.company.notices.unwatch(channel)

    def notify(
        self,
        channel: str,
        user: Hashable,
        message: Any,
        *,
        exclude: Connections | None = None,
        to_self: bool = True,
    ) -> int:
        """Send a message about a user (such as typing) to the members who may see that user. Returns their number.

        Without ``to_self`` it is not sent to the user's own connections. No channel keeps such messages.
        """
        return self._notify_here(channel, user, message, exclude, to_self)

    def _notify_here(
        self, channel: str, user: Hashable, message: Any, exclude: Connections | None, to_self: bool
    ) -> int:
        left_out = [] if exclude is None else [*many(exclude)]
        if not to_self:
            left_out += self._members(USER_KIND, user)
        if not self.life.company.sight.is_free:
            left_out += [ws for ws in self._members(CHANNEL_KIND, channel) if not self.sees(ws.user, user)]
        return Endpoint.broadcast(self, channel, message, exclude=left_out)

    def may_be_elsewhere(self, channel: str, user: Hashable) -> bool:
        """Returns whether a user is in a channel on another node, or may be, as it is not known who is there."""
        return False

    def sees(self, viewer: Hashable, user: Hashable) -> bool:
        """Returns whether `Listener.can_see` lets a viewer see a user; cached until `visibility_changed`."""
        return self.life.company.sight.sees(viewer, user)

    def visibility_changed(self, user: Hashable, *, everywhere: bool = True) -> None:
        """Ask ``can_see`` again about a user, both as viewer and as the one seen.

        In watched channels, members for whom somebody appears or disappears get a "join" or a "leave". Without
        ``everywhere`` other nodes are not told, as where a `SharedDict` has told them.
        """
        self._check_thread()
        self.life.company.sight.forget(user)
        self.life.company.notices.review(user)

    def subscribe_user(self, user: Hashable, channel: str) -> int:
        """Have every connection of a user join a channel. Returns the number of subscribers."""
        return self.life.enter(self._members(USER_KIND, user), _channel_name(channel))

    def unsubscribe_user(self, user: Hashable, channel: str, *, everywhere: bool = True) -> int:
        """Have every connection of a user leave a channel (a kick). Returns how many subscribers remain.

        Without ``everywhere`` only those on this node.
        """
        _channel_name(channel)
        self.life.exit([(ws, channel) for ws in self._members(USER_KIND, user)])
        self.life.company.remove(user, channel)
        return self._count(channel)

    def close_user(self, user: Hashable, code: int = 4001, reason: str = "logged out") -> int:
        """Close every connection of a user. Returns how many it closed. Pending handshakes are refused with 401."""
        self._check_thread()
        check_close(code, reason)
        greeting = [ws for ws in self.life.greeting if ws.user == user]
        self.life.refuse_pending(lambda request: request.user == user, reason)
        return self._close([*self._members(USER_KIND, user), *greeting], code, reason)

    def close_session(self, session_id: str, code: int = 4001, reason: str = "logged out") -> int:
        """Close every connection with an HTTP session (``Session.id``), as a logout must. Returns how many it closed.

        Pending handshakes are refused with 401. Raises ValueError for a code that cannot be sent.
        """
        self._check_thread()
        check_close(code, reason)
        self.life.refuse_pending(lambda request: getattr(request.session, "id", None) == session_id, reason)
        return self._close(self._members(SESSION_KIND, session_id), code, reason)

    def _close(self, connections: list[WebSocket], code: int, reason: str) -> int:
        still_open = [ws for ws in connections if ws.is_open]
        for ws in still_open:
            ws.close(code, reason)
        return len(still_open)

    def subscribe(self, channel: str, ws: WebSocket) -> int:
        """Have a connection join a channel. Returns the number of subscribers. Joining twice changes nothing.

        Raises TypeError for a name that is not a str, ValueError for a connection of another endpoint.
        """
        return self.life.enter((ws,), _channel_name(channel))

    def unsubscribe(self, channel: str, ws: WebSocket) -> int:
        """Have a connection leave a channel. Returns how many subscribers remain."""
        self.life.exit([(ws, _channel_name(channel))])
        return self._count(channel)

    def unsubscribe_all(self, ws: WebSocket) -> None:
        """Have a connection leave all its channels."""
        if ws.is_open:
            self.life.exit([(ws, channel) for channel in ws.channels])

    # -- from other threads

    def broadcast_threadsafe(
        self,
        channel: str,
        message: Any,
        *,
        to: Connections | None = None,
        users: Any = None,
        exclude: Connections | None = None,
        compress: bool | None = None,
    ) -> "concurrent.futures.Future[int]":
        """``broadcast`` from any thread. Raises RuntimeError if the server is not running."""
        return self._on_loop(
            lambda: self.broadcast(channel, message, to=to, users=users, exclude=exclude, compress=compress)
        )

    def send_threadsafe(
        self, ids: Connections, message: Any, *, compress: bool | None = None
    ) -> "concurrent.futures.Future[int]":
        """``send`` from any thread. Raises RuntimeError if the server is not running."""
        return self._on_loop(lambda: self.send(ids, message, compress=compress))

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
        raise TypeError(f"a channel name must be a str, not {channel!r}")
    return channel
