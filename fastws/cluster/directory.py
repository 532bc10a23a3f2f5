"""The users of this node, as the other nodes know them: who is here first and last in the whole cluster."""

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

from ..backplane.base import Backplane, BackplaneError, NodeKey, UserName
from .backoff import Backoff
from .members import Members
from .names import user_text

__all__ = ["Directory", "user_name"]

CLAIM_SECONDS = 2.0  # that a handshake waits for the store; then this node decides alone
MOST_AT_ONCE = 500  # users in one call


class Change:
    """A user who came or went, as the store is to be told."""

    __slots__ = ("done", "is_release", "user")

    def __init__(self, user: UserName, is_release: bool, done: "asyncio.Future[bool]") -> None:
        self.user = user
        self.is_release = is_release
        self.done = done  # whether no other node has the user

    def resolve(self, is_only: bool) -> None:
        """Somebody else may have decided."""
        if not self.done.done():
            self.done.set_result(is_only)


class Directory:
    """Claims and releases users in the store, those of a turn of the loop together.

    Calls come one after the other, so that the store, which decides who was first and who is last, hears of each user's
    changes in their order. ``tell`` is called with a handler's name and a user where no connection's life does it.
    """

    def __init__(self, store: Backplane, members: Members, spawn: Any, tell: Callable[[str, UserName], None]) -> None:
        self._store = store
        self._members = members
        self._spawn = spawn
        self._tell = tell
        self._here: dict[UserName, None] = {}
        self._changes: dict[UserName, Change] = {}  # that the store has not been told
        self._lock = asyncio.Lock()
        self._working: asyncio.Task[None] | None = None
        self._is_leaving = False

    # -- users who come and go

    async def came(self, user: UserName) -> bool:
        """A user is here. Returns whether no other node has him or her, as far as can be found out in time."""
        self._here[user] = None
        change = self._change(user, is_release=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLAIM_SECONDS):
                return await asyncio.shield(change.done)
        change.resolve(True)
        return change.done.result()

    async def went(self, user: UserName) -> bool:
        """A user is no longer here. Returns whether no other node has him or her, once the store answers.

        The users of a node that stops have time to come back to others, which release them.
        """
        if self._is_leaving and not self._members.is_last:
            return False
        self._here.pop(user, None)
        change = self._change(user, is_release=True)
        if self._is_leaving and not self._store.is_connected:
            change.resolve(True)
        return await asyncio.shield(change.done)

    def _change(self, user: UserName, *, is_release: bool) -> Change:
        change = Change(user, is_release, asyncio.get_running_loop().create_future())
        before = self._changes.get(user)
        if before is not None and not before.done.done():
            before.resolve(False)  # nobody need be told of the one nor of the other
            change.resolve(False)
        self._changes[user] = change
        if self._working is None:
            self._working = self._spawn(self._work())
        return change

    async def _work(self) -> None:
        backoff = Backoff()
        try:
            while self._changes:
                await self._members.known()
                async with self._lock:
                    is_done = await self._tell_store()
                if is_done:
                    backoff.reset()
                else:
                    await backoff.pause()
        finally:
            self._working = None

    async def _tell_store(self) -> bool:
        """Tell the store of some changes. Returns whether it has taken them."""
        first = next(iter(self._changes.values()), None)
        if first is None:
            return True
        changes = [change for change in self._changes.values() if change.is_release == first.is_release][:MOST_AT_ONCE]
        for change in changes:
            del self._changes[change.user]
        call = self._store.release if first.is_release else self._store.claim
        try:
            found = await call([change.user for change in changes])
        except BackplaneError:
            self._put_back(changes)
            return False
        for change, nodes in zip(changes, found, strict=True):
            change.resolve(not nodes)
        return True

    def _put_back(self, changes: Iterable[Change]) -> None:
        for change in changes:
            later = self._changes.setdefault(change.user, change)
            if later is not change and not change.done.done():
                change.resolve(False)
                later.resolve(False)

    # -- nodes

    def bury(self, dead: NodeKey) -> None:
        """Release all users of a dead node; those whom nobody has any more are offline."""
        self._spawn(self._release_all(dead))

    async def _release_all(self, dead: NodeKey) -> None:
        users = await self._insist(partial(self._store.holdings, dead))
        for first in range(0, len(users), MOST_AT_ONCE):
            some = users[first : first + MOST_AT_ONCE]
            found = await self._insist(partial(self._store.release, some, dead))
            for user, nodes in zip(some, found, strict=True):
                if not nodes:
                    self._tell("on_user_offline", user)
        await self._insist(partial(self._store.buried, dead))

    async def rename(self, new: NodeKey) -> None:
        """This node goes on as another; no change is told until `claim_again` is through."""
        await self._lock.acquire()
        self._store.rename(new)

    async def claim_again(self, was_buried: bool) -> None:
        """Claim all users under the new name. Those whom nobody had any more are online again, if that was said.

        Of one who has left meanwhile, nothing has to be said then; the claim is released like any other.
        """
        try:
            leaving = {user for user, change in self._changes.items() if change.is_release and not change.done.done()}
            coming = {
                user for user, change in self._changes.items() if not change.is_release and not change.done.done()
            }
            users = [*dict.fromkeys([*self._here, *leaving]).keys() - coming]
            found = await self._insist(partial(self._store.claim, users))
            for user, nodes in zip(users, found, strict=True) if was_buried else ():
                if nodes:
                    continue
                if user in leaving:
                    self._changes[user].resolve(False)
                else:
                    self._tell("on_user_online", user)
        finally:
            self._lock.release()

    async def _insist(self, call: Callable[[], Any]) -> Any:
        """Ask the store until it answers."""
        backoff = Backoff()
        while True:
            try:
                return await call()
            except BackplaneError:
                await backoff.pause()

    # -- stopping

    def leave(self) -> None:
        """This node begins to stop."""
        self._is_leaving = True
        is_last = self._members.is_last
        if not (is_last and self._store.is_connected):
            for change in self._changes.values():
                change.resolve(is_last)

    async def stop(self) -> None:
        """Have the store know what has changed; where nobody will bury this node, it has no users any more."""
        with contextlib.suppress(BackplaneError, TimeoutError):
            async with asyncio.timeout(CLAIM_SECONDS if self._store.is_connected else 0):
                while self._working is not None:
                    await asyncio.wait([self._working])
                if self._here and self._members.is_last:
                    await self._store.release(list(self._here))
        for change in self._changes.values():
            change.resolve(True)

    # -- questions

    async def online(self, users: Iterable[UserName]) -> dict[UserName, int]:
        """Returns on how many nodes each user is; whoever is on none is left out."""
        asked = list(users)
        found = await self._store.find(asked)
        return {user: len(nodes) for user, nodes in zip(asked, found, strict=True) if nodes}


def user_name(endpoint: str, user: Hashable) -> UserName:
    """Returns how the store calls a user; raises TypeError for one that cannot cross nodes."""
    return UserName(endpoint, user_text(user))
