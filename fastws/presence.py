"""Presence: who is in a channel and since when, who may see whom, and who is told."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeAlias

import orjson

from ._core import CHANNEL_KIND, USER_KIND, Endpoint, WebSocket
from .life.steps import call

__all__ = [
    "EVERY_VIEWER",
    "Absence",
    "Away",
    "Company",
    "Notices",
    "Others",
    "People",
    "Presence",
    "Sight",
    "Stay",
    "merged",
]

logger = logging.getLogger("fastws.presence")

User: TypeAlias = Hashable
#: Since when a user is in a channel, as Unix time, and with how many connections.
Stay: TypeAlias = tuple[float, int]
EVERY_VIEWER: Any = object()

MAX_CACHED_ANSWERS = 100_000  # of can_see, per endpoint


class Presence(NamedTuple):
    """One user in a channel."""

    since: datetime
    """When the user's first device joined, in UTC."""
    devices: int
    """Connections in the channel; 0 for a user who has been gone for less than ``offline_after`` seconds."""

    @classmethod
    def at(cls, since: float, devices: int) -> "Presence":
        """Returns the presence since a Unix time, rounded to 10 ms."""
        return cls(datetime.fromtimestamp(round(since, 2), UTC), devices)


def merged(stays: Iterable[Stay | None]) -> Stay | None:
    """Returns the stay of a user who is in a channel in several places, or None if in none of them."""
    known = [stay for stay in stays if stay is not None]
    return (min(since for since, _ in known), sum(devices for _, devices in known)) if known else None


@dataclass(slots=True, eq=False)
class Absence:
    """A user without a connection, in a channel or (None) at all, who may return before anybody is told."""

    channel: str | None
    user: User
    ws: WebSocket  # the last connection
    since: float  # when the user joined, as Unix time in seconds
    deadline: float  # on the loop's clock


class Away:
    """All absences; ``over`` is called with each that lasts too long."""

    def __init__(self, over: Callable[[Absence], None]) -> None:
        self._over = over
        self._absences: dict[str | None, dict[User, Absence]] = {}
        self._queue: deque[Absence] = deque()  # all last equally long; those that ended early stay until their deadline
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, ws: WebSocket, channel: str | None, since: float, seconds: float) -> None:
        """The last connection of a user is gone. ``seconds`` must be the same in each call."""
        loop = asyncio.get_running_loop()
        absence = Absence(channel, ws.user, ws, since, loop.time() + seconds)
        self._absences.setdefault(channel, {})[ws.user] = absence
        self._queue.append(absence)
        if self._timer is None:
            self._timer = loop.call_at(absence.deadline, self._check_deadlines)

    def end(self, channel: str | None, user: User) -> Absence | None:
        """The user is back, or gone for good. Returns the absence, if there was one."""
        absences = self._absences.get(channel)
        absence = None if absences is None else absences.pop(user, None)
        if absences is not None and not absences:
            del self._absences[channel]
        return absence

    def users(self, channel: str) -> Mapping[User, Absence]:
        """Returns the users who are away from a channel."""
        return self._absences.get(channel, {})

    def channels(self, user: User) -> list[str]:
        """Returns the channels that a user is away from."""
        return [channel for channel, users in self._absences.items() if channel is not None and user in users]

    def end_all(self) -> None:
        """End all absences at once: nobody will return."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            self._end_first()

    def _check_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._queue and self._queue[0].deadline <= loop.time():
            self._end_first()
        if self._queue and self._timer is None:
            self._timer = loop.call_at(self._queue[0].deadline, self._check_deadlines)

    def _end_first(self) -> None:
        absence = self._queue.popleft()
        if self._absences.get(absence.channel, {}).get(absence.user) is absence:
            self.end(absence.channel, absence.user)
            self._over(absence)


class Sight:
    """A cache of the answers of ``Listener.can_see``. If that is None, everybody sees everybody."""

    def __init__(self, can_see: Callable[[User, User], Any] | None) -> None:
        self._can_see = can_see
        self._answers: dict[User, dict[User, bool]] = {}  # by the user seen, then by viewer
        self._count = 0

    @property
    def is_free(self) -> bool:
        """Whether everybody sees everybody."""
        return self._can_see is None

    def sees(self, viewer: User, user: User) -> bool:
        """Returns whether a viewer (None: a connection without a user) may see a user. Everybody sees themselves."""
        if self._can_see is None or viewer == user:
            return True
        answers = self._answers.get(user)
        if answers is not None and viewer in answers:
            return answers[viewer]
        return self._ask(viewer, user)

    def forget(self, user: User) -> None:
        """Forget the answers about a user, both as viewer and as the one seen."""
        self._count -= len(self._answers.pop(user, ()))
        for answers in self._answers.values():
            self._count -= answers.pop(user, None) is not None

    def _ask(self, viewer: User, user: User) -> bool:
        assert self._can_see is not None
        try:
            answer = bool(call(self._can_see, viewer, user))
        except Exception:
            logger.exception("can_see failed, so %r does not see %r", viewer, user)
            return False
        if self._count >= MAX_CACHED_ANSWERS:
            self._answers, self._count = {}, 0
        self._answers.setdefault(user, {})[viewer] = answer
        self._count += 1
        return answer


class Watch:
    """A watched channel, and what its members were told: of the announced users except those hidden from them."""

    __slots__ = ("announced", "hidden", "waiting")

    def __init__(self) -> None:
        #: Who gets a list, and is told nothing before, as soon as it is known who is on other nodes; then None.
        self.waiting: list[WebSocket] | None = None
        self.announced: set[User] = set()
        self.hidden: dict[User, set[User]] = {}  # by viewer; empty sets are removed

    def is_hidden(self, user: User, viewer: User) -> bool:
        """Returns whether a viewer was not told of a user."""
        return user in self.hidden.get(viewer, ())

    def hide(self, user: User, viewer: User) -> None:
        """The viewer is not told of the user."""
        self.hidden.setdefault(viewer, set()).add(user)

    def show(self, user: User, viewer: User) -> None:
        """The viewer is told of the user."""
        users = self.hidden.get(viewer)
        if users is not None:
            users.discard(user)
            if not users:
                del self.hidden[viewer]

    def forget(self, user: User) -> None:
        """A user has left, both as viewer and as the one seen."""
        self.announced.discard(user)
        self.hidden.pop(user, None)
        for viewer in list(self.hidden):
            self.show(user, viewer)


class Others(Protocol):
    """Who is in the channels of an endpoint on other nodes."""

    def of(self, channel: str) -> Mapping[User, Stay]:
        """Returns each user who is in a channel elsewhere."""

    def stay(self, channel: str, user: User) -> Stay | None:
        """Returns the stay of a user in a channel elsewhere, if there is one."""

    def channels(self, user: User) -> Iterable[str]:
        """Returns the channels where a user is elsewhere."""

    def is_known(self, channel: str) -> bool:
        """Returns whether it is known who is there; if not, `Notices.settle` is called once it is."""

    def watch(self, channel: str) -> None:
        """Begin to follow who is there."""

    def unwatch(self, channel: str) -> None:
        """Follow it no more, unless it has to be known for another reason."""

    def changed(self, channel: str, user: User) -> None:
        """A user has come, has gone for good, or is here with another number of connections."""


class Nobody:
    """There are no other nodes."""

    def of(self, channel: str) -> Mapping[User, Stay]:
        """Nobody is elsewhere."""
        return {}

    def stay(self, channel: str, user: User) -> Stay | None:
        """Nobody is elsewhere."""
        return None

    def channels(self, user: User) -> Iterable[str]:
        """Nobody is elsewhere."""
        return ()

    def is_known(self, channel: str) -> bool:
        """Nobody is elsewhere, as is known."""
        return True

    def watch(self, channel: str) -> None:
        """There is nothing to follow."""

    unwatch = watch

    def changed(self, channel: str, user: User) -> None:
        """There is nobody to tell."""


class People:
    """Who is in a channel of an endpoint, including users who are away and may return, and those on other nodes."""

    def __init__(self, endpoint: Endpoint, away: Away) -> None:
        self.endpoint = endpoint
        self.away = away
        self.others: Others = Nobody()

    def of(self, channel: str) -> dict[User, Presence]:
        """Returns each user of a channel once."""
        here, others = self.here(channel), self.others.of(channel)
        stays = here | {user: merged((here.get(user), stay)) or stay for user, stay in others.items()}
        return {user: Presence.at(since, devices) for user, (since, devices) in stays.items()}

    def stay(self, channel: str, user: User) -> Stay | None:
        """Returns the stay of one user."""
        return merged((self.stay_here(channel, user), self.others.stay(channel, user)))

    def here(self, channel: str) -> dict[User, Stay]:
        """Returns the users who are in a channel on this node."""
        people = self.endpoint._people(channel)
        for user, absence in self.away.users(channel).items():
            people.setdefault(user, (absence.since, 0))
        return people

    def stay_here(self, channel: str, user: User) -> Stay | None:
        """Returns the stay of one user on this node."""
        since, devices = self.endpoint._person(channel, user)
        if devices:
            return since, devices
        absence = self.away.users(channel).get(user)
        return None if absence is None else (absence.since, 0)


class Notices:
    """Tells the members of watched channels who joins and leaves, as far as they may see it.

    Members who were told of a join are told of the leave, whatever ``can_see`` says by then.
    """

    def __init__(self, people: "People", sight: Sight) -> None:
        self._people = people
        self._endpoint = people.endpoint
        self._sight = sight
        self._watches: dict[str, Watch] = {}

    @property
    def watched(self) -> list[str]:
        """The channels that are watched."""
        return list(self._watches)

    def watch(self, channel: str) -> None:
        """Begin to watch: each member gets a list, now or when it is known who is on other nodes."""
        if channel in self._watches:
            return
        watch = self._watches[channel] = Watch()
        watch.waiting = self._endpoint._members(CHANNEL_KIND, channel)
        self._people.others.watch(channel)
        if self._people.others.is_known(channel):
            self.settle(channel)

    def settle(self, channel: str) -> None:
        """It is known who is there, or nobody can tell: each who waits gets a list."""
        watch = self._watches.get(channel)
        if watch is None or watch.waiting is None:
            return
        waiting, watch.waiting = watch.waiting, None
        people = self._list_people(channel)
        watch.announced.update(person["user"] for person in people)
        if self._sight.is_free:
            Endpoint.broadcast(self._endpoint, channel, _notice(channel, "list", users=people), to=waiting)
        else:
            for ws in waiting:
                self._send_list([ws], channel, people)

    def unwatch(self, channel: str) -> None:
        """Stop watching."""
        if self._watches.pop(channel, None) is not None:
            self._people.others.unwatch(channel)

    def announce_join(self, connections: list[WebSocket], channel: str) -> None:
        """Connections of one user, or a single one, have joined a channel: each gets a list, the others a "join"."""
        watch = self._watches.get(channel)
        if watch is None:
            return
        if watch.waiting is not None:
            watch.waiting += connections
            return
        if connections[0].user is not None:
            self.update(channel, connections[0].user)
        self._send_list(connections, channel, self._list_people(channel))

    def update(self, channel: str, user: User) -> None:
        """A user may have come or gone, here or elsewhere: the members are told, unless they have been."""
        watch = self._watches.get(channel)
        if watch is None or watch.waiting is not None:
            return
        stay = self._people.stay(channel, user)
        if stay is not None and user not in watch.announced:
            self._announce(watch, channel, user)
        elif stay is None and user in watch.announced:
            self._take_back(watch, channel, user)

    def _announce(self, watch: Watch, channel: str, user: User) -> None:
        watch.announced.add(user)
        exclude = [*self._endpoint._members(USER_KIND, user), *self._members_who_cannot_see(channel, user)]
        Endpoint.broadcast(self._endpoint, channel, self._join_notice(channel, user), exclude=exclude)

    def _take_back(self, watch: Watch, channel: str, user: User) -> None:
        members = self._endpoint._members(CHANNEL_KIND, channel) if watch.hidden else ()
        unaware = [ws for ws in members if watch.is_hidden(user, ws.user)]
        watch.forget(user)
        Endpoint.broadcast(self._endpoint, channel, _notice(channel, "leave", user=user), exclude=unaware)

    def review(self, user: User) -> None:
        """Visibility has changed for a user: tell the members for whom somebody appears or disappears."""
        channels = {channel for ws in self._endpoint._members(USER_KIND, user) for channel in ws.channels}
        channels.update(self._people.away.channels(user), self._people.others.channels(user))
        for channel in channels & self._watches.keys():
            for viewer in {ws.user for ws in self._endpoint._members(CHANNEL_KIND, channel)}:
                self._update(channel, viewer, user)
            if self._people.stay_here(channel, user) is not None:
                for other in self._people.of(channel):
                    self._update(channel, user, other)

    def _list_people(self, channel: str) -> list[dict[str, Any]]:
        """Returns everybody in a channel, in the form of a list notice."""
        people = self._people.of(channel)
        return [{"user": user, "since": since, "devices": devices} for user, (since, devices) in people.items()]

    def _send_list(self, connections: list[WebSocket], channel: str, people: list[dict[str, Any]]) -> None:
        """Send a list to connections of one user."""
        if not self._sight.is_free:
            viewer = connections[0].user
            people = [person for person in people if self._check_sight(channel, viewer, person["user"])]
        Endpoint.broadcast(self._endpoint, channel, _notice(channel, "list", users=people), to=connections)

    def _join_notice(self, channel: str, user: User) -> str:
        since, devices = self._people.stay(channel, user) or (time.time(), 0)
        return _notice(channel, "join", user=user, since=Presence.at(since, devices).since)

    def _check_sight(self, channel: str, viewer: User, user: User) -> bool:
        """Returns whether a viewer may see a member, and records that the viewer is told accordingly."""
        watch = self._watches[channel]
        sees = self._sight.sees(viewer, user)
        (watch.show if sees else watch.hide)(user, viewer)
        return sees

    def _members_who_cannot_see(self, channel: str, user: User) -> list[WebSocket]:
        """Returns the connections in a channel that may not see a user."""
        if self._sight.is_free:
            return []
        return [
            ws for ws in self._endpoint._members(CHANNEL_KIND, channel) if not self._check_sight(channel, ws.user, user)
        ]

    def _update(self, channel: str, viewer: User, user: User) -> None:
        """Tell a viewer if what they were told about a user is no longer true."""
        watch = self._watches[channel]
        was_hidden = watch.is_hidden(user, viewer)
        if user not in watch.announced or self._check_sight(channel, viewer, user) != was_hidden:
            return
        notice = self._join_notice(channel, user) if was_hidden else _notice(channel, "leave", user=user)
        if viewer is None:
            strangers = [ws for ws in self._endpoint._members(CHANNEL_KIND, channel) if ws.user is None]
            Endpoint.broadcast(self._endpoint, channel, notice, to=strangers)
        else:
            Endpoint.broadcast(self._endpoint, channel, notice, users=(viewer,))


class Company:
    """The people of one endpoint: who is there or away, who may see whom, and who is told.

    ``offline`` is called with the last connection of a user who has been gone for too long.
    """

    def __init__(self, endpoint: Endpoint, can_see: Callable[[User, User], Any] | None, offline: Any) -> None:
        self._endpoint = endpoint
        self._offline: Callable[[WebSocket], None] = offline
        self.away = Away(self._absence_over)
        self.sight = Sight(can_see)
        self.people = People(endpoint, self.away)
        self.notices = Notices(self.people, self.sight)

    def meet(self, others: Others) -> None:
        """There are other nodes, and from now on people there."""
        self.people.others = others
        for channel in self.notices.watched:
            others.watch(channel)

    def arrive(self, connections: list[WebSocket], channel: str) -> None:
        """Connections of one user, or a single one, have joined a channel."""
        user = connections[0].user
        absence = self.away.end(channel, user)
        if absence is not None:
            self._endpoint._backdate(channel, connections[0], absence.since)
        self.notices.announce_join(connections, channel)
        if user is not None:
            self.people.others.changed(channel, user)

    def depart(self, ws: WebSocket, channel: str) -> None:
        """A connection has left a channel on purpose; so has its user, if it was the last one there."""
        self.remove(ws.user, channel)

    def remove(self, user: User, channel: str) -> None:
        """A user is out of a channel for good, unless one of their connections is still there."""
        if user is None:
            return
        if not self._endpoint._is_there(channel, user):
            self.away.end(channel, user)
            self.notices.update(channel, user)
        self.people.others.changed(channel, user)

    def vanish(self, ws: WebSocket, channel: str, since: float, seconds: float) -> None:
        """A connection that was in a channel is over; its user may be back within ``seconds``."""
        if seconds <= 0:
            self.remove(ws.user, channel)
        elif ws.user is not None:
            if not self._endpoint._is_there(channel, ws.user):
                self.away.begin(ws, channel, since, seconds)
            self.people.others.changed(channel, ws.user)

    def _absence_over(self, absence: Absence) -> None:
        if absence.channel is None:
            self._offline(absence.ws)
        else:
            self.notices.update(absence.channel, absence.user)
            self.people.others.changed(absence.channel, absence.user)


def _notice(channel: str, event: str, **fields: Any) -> str:
    """Returns a presence notice as JSON; a user of a type that JSON does not have is sent as its str()."""
    notice = {"type": "presence", "channel": channel, "event": event, **fields}
    try:
        return orjson.dumps(notice, default=str).decode()
    except TypeError:  # a lone surrogate in a name, which the standard library escapes
        return json.dumps(notice, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
