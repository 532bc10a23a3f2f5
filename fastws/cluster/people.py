"""Who is in channels on all nodes: each writes down its own people, and every node computes the same list.

Of each channel whose presence is kept there is a log with keys. A key is a user and a node in one of its lives, its
value since when the user is there and with how many connections. Nobody changes what another node has written, so there
is nothing to race; what a dead node has written is not counted, and is removed in time.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from fnmatch import translate
from re import compile as compiled
from typing import Any, Protocol, TypeAlias

import orjson

from .._core import USER_KIND, Endpoint
from ..backplane.base import NodeKey, Record
from ..presence import Stay, merged
from .follower import LogFollower, Missed
from .names import user_text
from .node import Node
from .said import is_same, is_there, log_of, of_last_lives, said_in

__all__ = ["Crowds"]

logger = logging.getLogger("fastws.cluster")

User: TypeAlias = Hashable

RENEW_SECONDS = 600.0  # between signs of life of a log that has people
TEND_SECONDS = 60.0, 120.0  # at least and at most between looks for what nobody needs; a dead node is dead for one
DEVICES_SECONDS = 1.0  # within which a number of connections is written once
RETRY_SECONDS = 1.0
AFTER_LOSS_SECONDS = 5.0  # that living nodes have to write anew what the store has lost


class Here(Protocol):
    """Who is in channels on this node."""

    @property
    def endpoint(self) -> Endpoint:
        """Whose channels these are."""

    def here(self, channel: str) -> Mapping[User, Stay]:
        """Returns the users who are in a channel on this node."""

    def stay_here(self, channel: str, user: User) -> Stay | None:
        """Returns the stay of one user on this node."""


class Told(Protocol):
    """Whoever tells the members of a channel here."""

    def update(self, channel: str, user: User) -> None:
        """A user may have come or gone, here or elsewhere."""

    def settle(self, channel: str) -> None:
        """It is known who is there, or nobody can tell."""


class Crowds:
    """The channels of an endpoint whose people are known across nodes: those watched, and those that ``globs`` match.

    ``path`` is whose channels they are, for other nodes. When the server stops, nobody leaves. ``on_written`` is called
    with a channel, a user and whether he or she is there, when what this node has written of that is in the log, after
    all that others had written before.
    """

    def __init__(
        self,
        node: Node,
        path: str,
        people: Here,
        notices: Told,
        *,
        globs: Iterable[str],
        is_stopping: Callable[[], bool],
        on_written: Callable[[str, User, bool], None] | None = None,
    ) -> None:
        self.node = node
        self.path = path
        self.people = people
        self.notices = notices
        self.is_stopping = is_stopping
        self.on_written = on_written
        self._crowds: dict[str, Crowd] = {}
        self._living: set[NodeKey] = set()  # the others
        self._dead: set[NodeKey] = set()
        self._new: dict[NodeKey, asyncio.TimerHandle] = {}  # that live, though no beat tells so (yet)
        self._doubts_until = 0.0  # on the loop's clock
        self._globs = [compiled(translate(glob)).match for glob in globs]

    def begin(self) -> None:
        """The node has started."""
        members = self.node.members
        members.watch(self)
        self._living = {node for node in members.living if node.id != self.node.key.id}
        self.node.spawn(self._tend())

    def stop(self) -> None:
        """The server has stopped. What this node has written stays, for the time that its users have to come back."""
        for crowd in self._crowds.values():
            crowd.stop()
        for timer in self._new.values():
            timer.cancel()
        self._crowds.clear()
        self._new.clear()

    # -- what `Company` asks

    def of(self, channel: str) -> Mapping[User, Stay]:
        """Returns each user who is in a channel elsewhere."""
        crowd = self._crowds.get(channel)
        return {} if crowd is None else crowd.elsewhere()

    def stay(self, channel: str, user: User) -> Stay | None:
        """Returns the stay of a user in a channel elsewhere, if there is one."""
        crowd = self._crowds.get(channel)
        return None if crowd is None else crowd.stay(user)

    def channels(self, user: User) -> list[str]:
        """Returns the channels where a user is elsewhere."""
        return [channel for channel, crowd in self._crowds.items() if crowd.stay(user) is not None]

    def is_known(self, channel: str) -> bool:
        """Returns whether it is known who is there."""
        crowd = self._crowds.get(channel)
        return crowd is None or crowd.is_known or not self.node.store.is_connected

    def watch(self, channel: str) -> None:
        """Begin to follow who is there."""
        self._crowd(channel).is_watched = True

    def unwatch(self, channel: str) -> None:
        """Follow it no more, unless the option has it or somebody who was there may be back."""
        crowd = self._crowds.get(channel)
        if crowd is not None:
            crowd.is_watched = False
            self.let_go(crowd)

    def changed(self, channel: str, user: User) -> None:
        """A user has come, has gone for good, or is here with another number of connections."""
        crowd = self._crowds.get(channel)
        if crowd is not None and not self.is_stopping():
            crowd.changed(user)
            self.let_go(crowd)

    def has_written(self, channel: str, user: User) -> bool:
        """Returns whether this node has written that a user is in a channel."""
        crowd = self._crowds.get(channel)
        return crowd is not None and user in crowd.written

    # -- what the manager says

    def may_have(self, channel: str, user: User) -> bool:
        """Returns whether a user has connections in a channel elsewhere, or may have, as it is not known here."""
        crowd = self._crowds.get(channel)
        return crowd is None or not crowd.is_known or is_there(crowd.stay(user))

    def use(self, channel: str) -> "asyncio.Task[None] | None":
        """Somebody here is in a channel, or will be. Returns what to wait for until it is known who is there."""
        if not any(matches(channel) for matches in self._globs):
            return None
        crowd = self._crowd(channel)
        crowd.is_used = True
        return crowd.knowing if self.node.store.is_connected else None

    def unuse(self, channel: str) -> None:
        """Nobody here is in a channel any more."""
        crowd = self._crowds.get(channel)
        if crowd is not None:
            crowd.is_used = False
            self.let_go(crowd)

    def on_backplane(self, is_connected: bool) -> None:
        """The store is there (again), or gone: then nobody waits to hear who is on other nodes."""
        if is_connected:
            self._begin_to_doubt()
        for crowd in list(self._crowds.values()):
            if is_connected:
                crowd.check()
            else:
                self.notices.settle(crowd.channel)

    # -- which nodes there are

    def is_living(self, node: NodeKey) -> bool:
        """Returns whether what a node has written counts."""
        return node in self._living or node in self._new

    def heard_of(self, node: NodeKey) -> None:
        """A node has written something just now: so it lives, though its first beat may not be known here yet."""
        is_known = node in self._living or node in self._new or node in self._dead
        if not is_known and node.id != self.node.key.id:
            self._expect(node)

    def found(self, nodes: set[NodeKey]) -> None:
        """What these nodes have written was read; one whose earlier life still counts lives in its next one, too."""
        for node in nodes - self._living - self._new.keys():
            if any(other.id == node.id and other < node for other in {*self._living, *self._new}):
                self.heard_of(node)

    def _expect(self, node: NodeKey) -> None:
        self._new[node] = asyncio.get_running_loop().call_later(self.grace, self._miss, node)

    def _miss(self, node: NodeKey) -> None:
        """No beat came, unless none could come."""
        if self.node.store.is_connected:
            self._dead.add(node)
            self._is_known(node)
        else:
            self._expect(node)

    @property
    def grace(self) -> float:
        """Seconds that living nodes have to say again what the store has lost."""
        return max(AFTER_LOSS_SECONDS, 2 * self.node.options.lease)

    def _begin_to_doubt(self) -> None:
        """The store may have lost something: who is missing there may only have to write itself anew."""
        self._doubts_until = asyncio.get_running_loop().time() + self.grace

    def on_appeared(self, node: NodeKey) -> None:
        """A node is there, or was not dead after all."""
        self._living.add(node)
        self._dead.discard(node)
        self._is_known(node)

    def on_died(self, node: NodeKey, *, is_certain: bool) -> None:
        """A node is dead, or gone for good; or missing in the store, which may only have lost it."""
        was_living = node in self._living
        self._living.discard(node)
        if was_living and not is_certain and asyncio.get_running_loop().time() < self._doubts_until:
            self._expect(node)
        else:
            self._dead.add(node)
            self._is_known(node)

    def _is_known(self, node: NodeKey) -> None:
        timer = self._new.pop(node, None)
        if timer is not None:
            timer.cancel()
        for crowd in list(self._crowds.values()):
            crowd.recount()

    def on_reborn(self, before: NodeKey) -> None:
        """This node goes on under its next incarnation: what it has written is void."""
        self._begin_to_doubt()
        for crowd in list(self._crowds.values()):
            crowd.rewrite(before)

    # -- what has to be done now and then

    def _crowd(self, channel: str) -> "Crowd":
        crowd = self._crowds.get(channel)
        if crowd is None:
            crowd = self._crowds[channel] = Crowd(self, channel)
        return crowd

    def let_go(self, crowd: "Crowd") -> None:
        """Forget a channel that nobody here needs, unless somebody who was there may be back."""
        if not crowd.is_needed:
            crowd.check()
            if not crowd.written:
                del self._crowds[crowd.channel]
                crowd.stop()

    async def _tend(self) -> None:
        """Renew what has people; remove what dead nodes have left behind, unless another node was first."""
        dead: set[NodeKey] = set()
        renewed = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(random.uniform(*TEND_SECONDS))
            now = asyncio.get_running_loop().time()
            is_time = now - renewed >= RENEW_SECONDS
            renewed = now if is_time else renewed
            still_dead, dead = dead, set()
            for crowd in list(self._crowds.values()):
                dead |= crowd.bury(still_dead)
                if is_time:
                    crowd.renew()
                await asyncio.sleep(0)


class Crowd:
    """One channel: what other nodes have written of their people, and what this one has."""

    def __init__(self, crowds: Crowds, channel: str) -> None:
        self.channel = channel
        self.is_watched = self.is_used = self.is_known = False
        self.written: dict[User, Stay] = {}  # by this node
        self._crowds = crowds
        self._node = crowds.node
        self._log = log_of(crowds.path, channel)
        self._others: dict[User, dict[NodeKey, Stay]] = {}
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._recounted: set[User] = set()  # whose number of connections is to be written
        self._follower: LogFollower = self._node.follow(self._log, self)
        self.knowing = self._node.spawn(self._know())
        self._later(self._node.options.backplane_timeout, self._settle)

    def stop(self) -> None:
        """It is not needed any more."""
        for timer in self._timers.values():
            timer.cancel()
        self.knowing.cancel()
        self._node.unfollow(self._follower)

    @property
    def is_needed(self) -> bool:
        """Whether people here have to be written down."""
        return self.is_watched or self.is_used

    # -- the others

    def elsewhere(self) -> dict[User, Stay]:
        """Returns each user who is on another node that lives."""
        stays = ((user, self.stay(user)) for user in self._others)
        return {user: stay for user, stay in stays if stay is not None}

    def stay(self, user: User) -> Stay | None:
        """Returns the stay of a user on other nodes that live, if there is one."""
        said = self._others.get(user)
        return None if said is None else merged(stay for node, stay in said.items() if self._crowds.is_living(node))

    def recount(self) -> None:
        """Tell of whoever has come or gone with a node."""
        if self.is_known:
            for user in list(self._others):
                self._crowds.notices.update(self.channel, user)

    async def _know(self) -> None:
        await self._follower.catch_up(None, 0)
        self._learn()
        self.is_known = True
        for user, stay in self._crowds.people.here(self.channel).items():
            self._backdate(user, stay)
        self.check()
        self._settle()
        self.recount()
        self._crowds.let_go(self)

    def _settle(self) -> None:
        """Whoever waits for a list gets it, also where the store does not answer."""
        self._crowds.notices.settle(self.channel)

    def _learn(self) -> None:
        """All that other nodes have said."""
        self._others = {}
        for user, node, stay in said_in(self._follower.table.values()):
            if node.id != self._node.key.id and stay is not None:
                self._others[user] = of_last_lives({**self._others.get(user, {}), node: stay})
        self._crowds.found({node for said in self._others.values() for node in said})

    def _backdate(self, user: User, here: Stay) -> None:
        """Whoever was elsewhere before is there since then, also when it is over elsewhere."""
        elsewhere = self.stay(user)
        if elsewhere is not None and elsewhere[0] < here[0]:
            endpoint = self._crowds.people.endpoint
            devices = [ws for ws in endpoint._members(USER_KIND, user) if self.channel in ws.channels]
            if devices:
                endpoint._backdate(self.channel, devices[0], elsewhere[0])

    def on_records(self, records: Sequence[Record]) -> None:
        """The next changes."""
        if not self.is_known:
            return  # they are in the follower's table
        for user, node, stay in said_in(records):
            if node.id == self._node.key.id:
                if self._crowds.on_written is not None:
                    self._crowds.on_written(self.channel, user, stay is not None)
                continue
            said = self._others.setdefault(user, {})
            said.pop(node, None)
            if stay is not None:
                self._others[user] = of_last_lives({**said, node: stay})
                self._crowds.heard_of(node)
            elif not said:
                del self._others[user]
            self._crowds.notices.update(self.channel, user)

    def on_begun(self, missed: Missed) -> None:
        """Something is missing, maybe because the store has lost it: then nobody leaves before it is written anew."""
        if self.is_known:
            before = self._others
            self._learn()
            for user, said in before.items():
                self._others[user] = of_last_lives(said | self._others.get(user, {}))
            self.check()
            self.recount()
            self._later(self._crowds.grace, self._learn_anew)

    def _learn_anew(self) -> None:
        before = self._others
        self._learn()
        for user in {*before, *self._others}:
            self._crowds.notices.update(self.channel, user)

    # -- this node's own

    def changed(self, user: User) -> None:
        """A user has come, has gone for good, or is here with another number of connections."""
        stay = self._here(user)
        if stay is not None and self.is_known and user not in self.written:
            self._backdate(user, stay)
            stay = self._here(user)
        before = self.written.get(user)
        if is_there(stay) != is_there(before) or (stay is None) != (before is None):
            self._write(user, stay)
        elif not is_same(stay, before):
            self._recounted.add(user)
            self._later(DEVICES_SECONDS, self._write_recounted)

    def _here(self, user: User) -> Stay | None:
        """Returns the stay of a user here, as it is written down."""
        stay = self._crowds.people.stay_here(self.channel, user)
        if stay is None or not (self.is_needed or stay[1] == 0):
            return None
        return round(stay[0], 2), stay[1]

    def _write_recounted(self) -> None:
        users, self._recounted = self._recounted, set()
        for user in users:
            stay = self._here(user)
            if not is_same(stay, self.written.get(user)):
                self._write(user, stay)

    def _write(self, user: User, stay: Stay | None) -> None:
        key = f"{user_text(user)} {self._node.key}"
        if stay is None:
            self.written.pop(user, None)
        else:
            self.written[user] = stay
        payload = b"" if stay is None else orjson.dumps(stay)
        stored = self._node.store.append(self._log, payload, key=key, is_deletion=stay is None)
        stored.add_done_callback(self._is_written)

    def _is_written(self, stored: "asyncio.Future[Any]") -> None:
        if not stored.cancelled() and stored.exception() is not None:
            self._later(RETRY_SECONDS, self.check)

    def rewrite(self, before: NodeKey) -> None:
        """This node has another name."""
        self.written.clear()
        self.check()
        for user, node, _ in said_in(list(self._follower.table.values())):
            if node == before:
                self._remove(f"{user_text(user)} {node}")

    def check(self) -> None:
        """Have the log say who is here; what it says already is not written again."""
        if not self.is_known or self._crowds.is_stopping():
            return
        mine: dict[User, Stay] = {
            user: stay for user, node, stay in said_in(self._follower.table.values()) if node == self._node.key and stay
        }
        here = self._crowds.people.here(self.channel)
        for user in {*mine, *self.written, *here}:
            stay = self._here(user)
            if not is_same(stay, mine.get(user)):
                self._write(user, stay)
            elif stay is not None:
                self.written[user] = stay  # else its end would not be written

    def renew(self) -> None:
        """The log lives on for as long as anybody is here."""
        self.check()
        for user, stay in self.written.items():
            self._write(user, stay)
            break

    def bury(self, dead: set[NodeKey]) -> set[NodeKey]:
        """Remove what nodes have written that were dead some time ago. Returns those that are dead now."""
        found = {node for said in self._others.values() for node in said if not self._crowds.is_living(node)}
        if self.is_known and self._node.store.is_connected:
            for user, said in list(self._others.items()):
                for node in said.keys() & found & dead:
                    self._remove(f"{user_text(user)} {node}")
        return found

    def _remove(self, key: str) -> None:
        stored = self._node.store.append(self._log, b"", key=key, is_deletion=True)
        stored.add_done_callback(_heed)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something once within some seconds."""
        if act not in self._timers:
            self._timers[act] = asyncio.get_running_loop().call_later(seconds, self._act, act)

    def _act(self, act: Callable[[], None]) -> None:
        del self._timers[act]
        act()


def _heed(stored: "asyncio.Future[Any]") -> None:
    """A failure does not matter: another node tries, or this one later."""
    if not stored.cancelled():
        stored.exception()
