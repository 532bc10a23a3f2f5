"""The hub: all endpoints of a server as one set of channels."""

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from ._core import CHANNEL_KIND, USER_KIND, WebSocket, check_close, many
from .logs import Position
from .manager import ConnectionManager
from .presence import Presence
from .server import Server

__all__ = ["ChannelCount", "ChannelState", "Hub", "Published", "Sender"]

Connections: TypeAlias = WebSocket | str | Iterable[WebSocket | str]
Users: TypeAlias = Hashable | Iterable[Hashable]


class Sender(NamedTuple):
    """Whose message it is: a user (None: nobody known), and the id of the connection."""

    user: Any
    id: str


class Published(NamedTuple):
    """How many connections a message was addressed to here, and where it stands in the channel's log, if it has one."""

    connections: int
    position: Position | None


class ChannelCount(NamedTuple):
    """A channel of any endpoint: how many connections it has, and how many users those are."""

    name: str
    subscribers: int
    users: int


class ChannelState(NamedTuple):
    """Who is in a channel, whatever the endpoint; ``users`` have those who are away and may be back, too."""

    name: str
    connections: list[WebSocket]
    users: dict[Hashable, Presence]


class Hub:
    """All endpoints of a server as one set of channels, for whoever publishes from outside of them.

    A message is ``str``, ``bytes``, or any other JSON value. An endpoint whose listener has the method
    ``envelope(channel, message, sender)``, or ``direct(message)`` for what goes to no channel, sends what that returns.
    Any other sends the message itself: ``str`` as text, ``bytes`` as binary, all else as JSON. It is encoded once for
    each endpoint. A listener's ``is_deaf(ws)`` tells that nothing may be sent to a connection yet, and its
    ``enter(ws, channel)`` has one join. Counts are of the connections addressed; all is called on the loop's thread.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def managers(self) -> list[ConnectionManager]:
        """The manager of each endpoint that the server has now."""
        return list(dict.fromkeys(self.server.endpoints.values()))

    def manager(self, endpoint: str) -> ConnectionManager:
        """Returns the manager of the endpoint with this path template; raises ValueError where there is none."""
        found = self.server.endpoints.get(endpoint)
        if found is None:
            known = ", ".join(manager.path for manager in self.managers)
            raise ValueError(f"{endpoint!r} is not an endpoint: there is {known or 'none'}")
        return found

    # -- sending

    def broadcast(
        self,
        channel: str,
        message: Any,
        *,
        to: Connections | None = None,
        users: Users = None,
        exclude: Connections | None = None,
        sender: Sender | None = None,
        endpoint: str | None = None,
        compress: bool | None = None,
    ) -> int:
        """Send a message to the members of a channel, on all endpoints or on one; how many were addressed.

        ``to``, ``users``, ``exclude`` and ``compress`` are those of `ConnectionManager.broadcast`. Raises TypeError for
        what cannot be encoded, ValueError for an endpoint that there is not.
        """
        to, users, exclude = _reusable(to), _reusable(users), _reusable(exclude)
        addressed = 0
        for manager in self._meant(endpoint):
            if may_have(manager, channel):
                wrapped = manager.enveloped(channel, message, sender)
                if to is None and users is None and exclude is None and compress is None and manager.keeps(channel):
                    manager.store(channel, wrapped)  # type: ignore[attr-defined]  # a ClusterManager
                    addressed += manager._count(channel)
                else:
                    addressed += manager.broadcast(
                        channel, wrapped, to=to, users=users, exclude=exclude, compress=compress
                    )
        return addressed

    def keeps(self, channel: str, endpoint: str | None = None) -> str | None:
        """Returns what a channel keeps on any endpoint, or on one: "history", "latest" or None."""
        keeper = self.keeper(channel, endpoint)
        return None if keeper is None else keeper.keeps(channel)

    def keeper(self, channel: str, endpoint: str | None = None) -> Any:
        """Returns the manager (a `ClusterManager`) of the first endpoint where a channel has a log, or None."""
        return next((manager for manager in self._meant(endpoint) if manager.keeps(channel)), None)

    async def publish(
        self,
        channel: str,
        message: Any,
        *,
        key: str | None = None,
        id: str | None = None,
        sender: Sender | None = None,
        endpoint: str | None = None,
    ) -> Published:
        """Send a message to all members of a channel, and where it has a log, wait until the store has it.

        Raises ValueError for a key where there must be none, or none where there must be one, BackplaneError where the
        store does not answer.
        """
        waiting: list[Any] = []
        addressed = 0
        managers = self._meant(endpoint)
        for manager in managers:
            if manager.keeps(channel):
                kept: Any = manager  # a ClusterManager
                waiting.append(kept.store(channel, manager.enveloped(channel, message, sender), key=key, id=id))
                addressed += manager._count(channel)
        positions: list[Position] = [await stored for stored in waiting]
        for manager in managers:
            if not manager.keeps(channel) and may_have(manager, channel):
                addressed += manager.broadcast(channel, manager.enveloped(channel, message, sender))
        return Published(addressed, positions[0] if positions else None)

    def _meant(self, endpoint: str | None) -> list[ConnectionManager]:
        """The manager of one endpoint, or (None) those of all; raises ValueError for one that there is not."""
        return self.managers if endpoint is None else [self.manager(endpoint)]

    def send(
        self,
        message: Any,
        *,
        users: Users = None,
        to: Connections | None = None,
        exclude: Connections | None = None,
        compress: bool | None = None,
    ) -> int:
        """Send a message to connections by user, by id (``to``), or either; each gets it once. How many there are."""
        addressed = 0
        to, users = _reusable(to), _reusable(users)
        excluded = {_id(connection) for connection in _each(exclude)}
        for manager, connections in self._chosen(users, to):
            is_deaf = getattr(manager.listener, "is_deaf", None)
            here = [ws for ws in connections if ws.id not in excluded and not (is_deaf and is_deaf(ws))]
            if here or manager.reaches_others:
                wrap = getattr(manager.listener, "direct", None)
                wrapped = message if wrap is None else wrap(message)
                addressed += manager.send(here, wrapped, compress=compress)
                manager.send_elsewhere(wrapped, users=_each(users), to=_ids(to), exclude=excluded, compress=compress)
        return addressed

    # -- membership

    def subscribe(self, channel: str, *, users: Users = None, to: Connections | None = None) -> int:
        """Have connections join a channel; how many of those named there are, newly joined or not."""
        to, users = _reusable(to), _reusable(users)
        count = 0
        for manager, connections in self._chosen(users, to):
            enter = getattr(manager.listener, "enter", None)
            for ws in connections:
                if enter is None:
                    manager.subscribe(channel, ws)
                else:
                    enter(ws, channel)
            manager.kick_elsewhere("subscribe", channel, users=_each(users), to=_ids(to))
            count += len(connections)
        return count

    def unsubscribe(self, channel: str, *, users: Users = None, to: Connections | None = None) -> int:
        """Have connections leave a channel (a kick); how many have left. Whoever is away does not come back to it."""
        to, users = _reusable(to), _reusable(users)
        count = 0
        for manager in self.managers:
            before = manager._count(channel)
            for user in _each(users):
                manager.unsubscribe_user(user, channel)
            for ws in _known(manager, to):
                manager.unsubscribe(channel, ws)
            manager.kick_elsewhere("unsubscribe", channel, to=_ids(to))
            count += before - manager._count(channel)
        return count

    def close(
        self,
        *,
        users: Users = None,
        to: Connections | None = None,
        session: str | None = None,
        channel: str | None = None,
        code: int = 4001,
        reason: str = "",
    ) -> int:
        """Close connections by user, by id, by HTTP session or by channel, or any of these; how many.

        Of a user or a session, handshakes under way are refused, too. Raises ValueError for a code that may not be sent
        or a reason over 123 bytes.
        """
        check_close(code, reason)
        to, users = _reusable(to), _reusable(users)
        count = 0
        for manager in self.managers:
            for user in _each(users):
                count += manager.close_user(user, code, reason)
            if session is not None:
                count += manager.close_session(session, code, reason)
            members = [] if channel is None else manager.subscribers(channel)
            for ws in (*_known(manager, to), *members):
                count += ws.is_open
                ws.close(code, reason)
            manager.close_elsewhere(channel, _ids(to), code, reason)
        return count

    # -- who is there

    def channels(self, prefix: str = "", after: str = "", limit: int = 100) -> list[ChannelCount]:
        """Returns channels by name, in order, from the first that begins with ``prefix`` and comes after ``after``."""
        counts: dict[str, int] = {}
        for manager in self.managers:
            for name, count in manager._counts(CHANNEL_KIND).items():
                if name > after and name.startswith(prefix):
                    counts[name] = counts.get(name, 0) + count
        return [ChannelCount(name, counts[name], self._user_count(name)) for name in heapq.nsmallest(limit, counts)]

    def largest(
        self, kind: int, prefix: str = "", limit: int = 100, is_wanted: Callable[[str], bool] | None = None
    ) -> tuple[list[tuple[Any, int]], int]:
        """Returns the channels or the users with the most connections, and how many there are of that prefix.

        ``kind`` is CHANNEL_KIND or USER_KIND. ``is_wanted`` says of a name whether it counts.
        """
        counts: dict[Any, int] = {}
        for manager in self.managers:
            for name, count in manager._counts(kind).items():
                if str(name).startswith(prefix) and (is_wanted is None or is_wanted(str(name))):
                    counts[name] = counts.get(name, 0) + count
        return heapq.nsmallest(limit, counts.items(), key=lambda item: (-item[1], str(item[0]))), len(counts)

    def _user_count(self, channel: str) -> int:
        people = [people for manager in self.managers if (people := manager._people(channel))]
        return len(people[0]) if len(people) == 1 else len(set().union(*people))

    def channel(self, name: str) -> ChannelState | None:
        """Returns who is in a channel; None where nobody is."""
        connections: list[WebSocket] = []
        users: dict[Hashable, Presence] = {}
        for manager in self.managers:
            connections += manager.subscribers(name)
            for user, there in manager.presence(name).items():
                before = users.get(user, Presence(there.since, 0))
                users[user] = Presence(min(before.since, there.since), before.devices + there.devices)
        return ChannelState(name, connections, users) if connections or users else None

    def user(self, name: Hashable) -> list[WebSocket]:
        """Returns the connections of a user."""
        return [ws for manager in self.managers for ws in manager._members(USER_KIND, name)]

    def connection(self, id: str) -> WebSocket | None:
        """Returns the open connection with this id, or None."""
        return next((ws for manager in self.managers if (ws := manager._find(id)) is not None), None)

    def _chosen(self, users: Users, to: Connections | None) -> Iterator[tuple[ConnectionManager, list[WebSocket]]]:
        """Each endpoint with those of its open connections that are named in either, once each, if any can be."""
        for manager in self.managers:
            found = [ws for user in _each(users) for ws in manager._members(USER_KIND, user)]
            found += _known(manager, to)
            if found or manager.reaches_others:
                yield manager, list(dict.fromkeys(found))


def may_have(manager: ConnectionManager, channel: str) -> bool:
    """Returns whether anybody can be in a channel of an endpoint, here or on another node, or a log keeps it."""
    return manager._count(channel) > 0 or manager.reaches_others


def _known(manager: ConnectionManager, to: Connections | None) -> list[WebSocket]:
    """Those of some connections that are open and of this endpoint."""
    return [ws for connection in _each(to) if (ws := manager._find(_id(connection))) is not None]


def _id(connection: Any) -> Any:
    return connection.id if isinstance(connection, WebSocket) else connection


def _ids(to: Connections | None) -> list[Any]:
    return [_id(connection) for connection in _each(to)]


def _each(value: Any) -> Iterable[Any]:
    return () if value is None else many(value)


def _reusable(value: Any) -> Any:
    """The same value, which every endpoint looks through: an iterator would be at its end with the second."""
    return list(value) if value is not None and isinstance(value, Iterator) else value
