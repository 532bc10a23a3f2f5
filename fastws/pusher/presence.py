"""Members of presence channels: users, whatever their number of connections, on all nodes."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from .._core import Endpoint, WebSocket
from ..backplane.base import NodeKey
from ..cluster.said import log_of, said_in
from ..manager import ConnectionManager
from ..presence import Stay
from .crowded import Crowded
from .frames import Member, answer, known_member

__all__ = ["Rooms"]

ENDPOINT = "pusher:members"  # whose channels these are, for other nodes
GLOBS = ("presence-*",)

#: Called with "member_added" or "member_removed", a channel and a user's id, where that was done on this node.
Tell = Callable[[str, str, str], None]


@dataclass
class Devices:
    """The connections here of a member, and since when there are any."""

    since: float
    ids: set[str] = field(default_factory=set)


class Room:
    """A presence channel that somebody here is in."""

    def __init__(self) -> None:
        self.here: dict[str, Devices] = {}  # by the member's text
        #: All users, here and elsewhere, with what is told of them; more than one where their connections differ.
        self.users: dict[str, dict[str, Any]] = {}


class Rooms(Crowded):
    """Who is in the presence channels of an endpoint, and what its members are told of each other.

    Between nodes, a member's text is what `Crowds` takes for a user: so the life and death of nodes, and of the store,
    are its business.
    """

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell
        self._rooms: dict[str, Room] = {}
        self._waiting: Counter[str] = Counter()  # connections that are about to join

    def begin(self, manager: ConnectionManager) -> None:
        """The server starts."""
        self._meet(manager, ENDPOINT, GLOBS)

    # -- coming and going

    @property
    def has_others(self) -> bool:
        """Whether somebody may be on other nodes, so that one has to `enter` within `known`."""
        return self._crowds is not None

    @asynccontextmanager
    async def known(self, channel: str) -> AsyncIterator[None]:
        """Wait until it is known who is in a channel on other nodes, as long as the store answers."""
        assert self._crowds is not None
        self._waiting[channel] += 1
        try:
            knowing = self._crowds.use(channel)
            if knowing is not None and not knowing.done():
                await asyncio.wait((knowing,), timeout=self._crowds.node.options.backplane_timeout)
            yield
        finally:
            self._waiting[channel] -= 1
            self._let_go(channel)

    def _let_go(self, channel: str) -> None:
        """Forget who is elsewhere, if nobody here is in the channel or about to be."""
        if not self._waiting[channel]:
            del self._waiting[channel]
            if self._crowds is not None and channel not in self._rooms:
                self._crowds.unuse(channel)

    def enter(self, channel: str, member: Member, ws: WebSocket) -> dict[str, Any]:
        """A connection is about to join. Returns who is there then, as ``pusher_internal:subscription_succeeded`` says.

        The others are told if it is their user's first.
        """
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = Room()
            for text in () if self._crowds is None else self._crowds.of(channel):
                self._add(room, known_member(str(text)))
        text = member.text
        room.here.setdefault(text, Devices(time.time())).ids.add(ws.id)
        if self._add(room, member):
            self._announce_added(channel, member)
            self._tell("member_added", channel, member.user_id)
        if self._crowds is not None:
            self._crowds.changed(channel, text)
        return listed(room)

    def exit(self, channel: str, member: Member, ws: WebSocket) -> None:
        """A connection has left. The others are told if it was its user's last."""
        room, text = self._rooms[channel], member.text
        devices = room.here[text]
        devices.ids.discard(ws.id)
        if not devices.ids:
            del room.here[text]
        if not self._is_there(channel, room, text) and self._remove(room, member):
            self._announce_removed(channel, member)
            self._tell("member_removed", channel, member.user_id)
        if self._crowds is not None:
            self._crowds.changed(channel, text)
        if not room.here:
            del self._rooms[channel]
            self._let_go(channel)

    def list(self, channel: str) -> dict[str, Any]:
        """Returns who is in a channel that somebody here is in."""
        return listed(self._rooms[channel])

    async def users(self, channel: str) -> Iterable[str]:
        """Returns the ids of those in a channel, on all nodes; raises BackplaneError."""
        room = self._rooms.get(channel)
        if room is not None:
            return list(room.users)
        if self._crowds is None:
            return ()
        read = await self._crowds.node.store.snapshot(log_of(ENDPOINT, channel))
        there = [said.user for said in said_in(read.records) if said.stay is not None and self._counts(said.node)]
        return list(dict.fromkeys(known_member(str(text)).user_id for text in there))

    def _counts(self, node: NodeKey) -> bool:
        assert self._crowds is not None
        return node != self._crowds.node.key and self._crowds.is_living(node)

    # -- what `Crowds` asks and tells

    def here(self, channel: str) -> Mapping[Any, Stay]:
        """Returns the members who are in a channel on this node."""
        room = self._rooms.get(channel)
        return {} if room is None else {text: (each.since, len(each.ids)) for text, each in room.here.items()}

    def stay_here(self, channel: str, user: Any) -> Stay | None:
        """Returns the stay of one member on this node."""
        room = self._rooms.get(channel)
        devices = None if room is None else room.here.get(user)
        return None if devices is None else (devices.since, len(devices.ids))

    def update(self, channel: str, user: Any) -> None:
        """A member may have come or gone elsewhere."""
        room = self._rooms.get(channel)
        if room is None:
            return
        member = known_member(user)
        if self._is_there(channel, room, user):
            if self._add(room, member):
                self._announce_added(channel, member)
        elif self._remove(room, member):
            self._announce_removed(channel, member)

    def settle(self, channel: str) -> None:
        """Whoever waits to join is woken by what `known` waits for."""

    # -- how

    def _is_there(self, channel: str, room: Room, text: str) -> bool:
        return text in room.here or (self._crowds is not None and self._crowds.stay(channel, text) is not None)

    def _add(self, room: Room, member: Member) -> bool:
        """Returns whether the user is new."""
        is_new = member.user_id not in room.users
        room.users.setdefault(member.user_id, {}).setdefault(member.text, member.info)
        return is_new

    def _remove(self, room: Room, member: Member) -> bool:
        """Returns whether the user is gone."""
        texts = room.users.get(member.user_id)
        if texts is None or texts.pop(member.text, room) is room or texts:
            return False
        del room.users[member.user_id]
        return True

    def _announce_added(self, channel: str, member: Member) -> None:
        told = {"user_id": member.user_id, "user_info": member.info}
        Endpoint.broadcast(self.endpoint, channel, answer("pusher_internal:member_added", told, channel))

    def _announce_removed(self, channel: str, member: Member) -> None:
        told = {"user_id": member.user_id}
        Endpoint.broadcast(self.endpoint, channel, answer("pusher_internal:member_removed", told, channel))


def listed(room: Room) -> dict[str, Any]:
    """Returns the users of a room, as those who join get it."""
    users = {user_id: next(iter(infos.values())) for user_id, infos in room.users.items()}
    return {"presence": {"count": len(users), "ids": list(users), "hash": users}}
