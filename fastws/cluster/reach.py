"""The half of an endpoint's manager that reaches users and connections on other nodes."""

import asyncio
import re
import time
from collections.abc import Awaitable, Hashable, Iterable
from itertools import chain
from typing import Any

from .._core import EVERYONE_KIND, USER_KIND, Endpoint, WebSocket, check_close, is_awaitable, many
from ..backplane.base import Subject
from ..errors import Reject
from ..life.steps import MessageHandler
from ..manager import ConnectionManager, Connections
from .directory import user_name
from .kicks import CUT_OFF, Kicks, close_slowly
from .node import Node
from .payloads import Relayed, message_of, packed, payload_of

__all__ = ["Reach", "ids_of"]

NODE_OF_ID = re.compile("([0-9a-f]{10})-").match  # ids of connections begin with that of their node


class Reach(ConnectionManager):
    """A `ConnectionManager` whose users and connections may be on other nodes."""

    node: Node | None = None
    _kicks: Kicks | None = None  # where there may be other nodes
    _letting_go: asyncio.Task[Any] | None = None

    def meet(self, node: Node) -> None:
        """The server starts, as this node."""
        self.node = node
        self.life.elsewhere = self
        self._kicks = None if node.is_alone else node.add(self)

    def _running(self) -> Node:
        if self.node is None:
            raise RuntimeError("the server is not running")
        self._check_thread()
        return self.node

    # -- what a life asks

    def check(self, user: Hashable) -> None:
        """Raises TypeError for a user whom other nodes could not name, Reject where this node lets nobody in."""
        node = self.node
        if node is not None and not node.is_alone:
            if user is not None:
                user_name(self.path, user)
            if node.options.degraded == "close" and node.members.is_cut_off:
                raise Reject(503, CUT_OFF[1], headers={"Retry-After": "1"})

    def came(self, user: Hashable) -> "bool | Awaitable[bool]":
        """A user is here. Returns whether no other node has him or her."""
        node = self._running()
        return True if node.is_alone else node.directory.came(user_name(self.path, user))

    def went(self, user: Hashable) -> "bool | Awaitable[bool]":
        """A user is no longer here. Returns whether no other node has him or her."""
        node = self.node
        return True if node is None or node.is_alone else node.directory.went(user_name(self.path, user))

    def guard(self, handle: MessageHandler) -> MessageHandler:
        """Returns a message handler that, where this process stood still, waits for the kicks that it has missed."""
        if self.node is None or self.node.is_alone:
            return handle
        members, clock = self.node.members, time.monotonic

        def guarded(ws: WebSocket, message: str | bytes) -> Any:
            if clock() < members.awake_until:
                return handle(ws, message)
            members.look()
            return handle_later(ws, message)

        async def handle_later(ws: WebSocket, message: str | bytes) -> Any:
            await members.awake()
            result: Any = handle(ws, message) if ws.is_open else None
            return await result if is_awaitable(result) else result

        return guarded

    def tell_of_user(self, handler: str, user: str | int) -> None:
        """A user is online again, or offline, as this node has found out."""
        self.life.tell(handler, user)

    # -- sending to users and connections

    def send(self, ids: Connections, message: Any, *, compress: bool | None = None) -> int:
        """Send a message to connections of this endpoint, on all nodes, by id. Returns how many were addressed here."""
        ids = list(many(ids))
        is_for_others = bool(self._elsewhere(ids))
        if is_for_others:
            message = message_of(payload_of(message))  # encoded once
        count = Endpoint.send(self, ids, message, compress=compress)
        if is_for_others:
            self.send_elsewhere(message, to=ids_of(ids) or (), compress=compress)
        return count

    def send_to_user(
        self, users: Any, message: Any, *, exclude: Connections | None = None, compress: bool | None = None
    ) -> int:
        """Send a message to every connection of one or several users, on all nodes; how many were addressed here."""
        users, exclude = list(many(users)), None if exclude is None else list(many(exclude))
        if self._kicks is None:
            return Endpoint.send_to_user(self, users, message, exclude=exclude, compress=compress)
        for user in users:
            self.check_user(user)
        message = message_of(payload_of(message))
        count = Endpoint.send_to_user(self, users, message, exclude=exclude, compress=compress)
        self.send_elsewhere(message, users=users, exclude=ids_of(exclude) or (), compress=compress)
        return count

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
        users, places = list(users), self._elsewhere(to)
        if self._kicks is None or not (users or places):
            return
        node, payload = self._running(), payload_of(message)
        about = {"kind": "direct", "endpoint": self.path, "exclude": list(exclude), "compress": compress}
        if users:
            names = [user_name(self.path, user) for user in users]
            node.store.route(names, packed(node.key.id, payload, {**about, "users": users}))
        for place, ids in places.items():
            data = packed(node.key.id, payload, {**about, "to": ids, "except": users})
            node.send(Subject("node", "", place), data)

    def _elsewhere(self, connections: Iterable[Any]) -> dict[str, list[str]]:
        """Those of some connections that are on other nodes, by node."""
        if self._kicks is None:
            return {}
        own = self._running().key.id
        places: dict[str, list[str]] = {}
        for name in connections:
            found = NODE_OF_ID(name) if isinstance(name, str) else None
            if found is not None and found[1] != own:
                places.setdefault(found[1], []).append(name)
        return places

    def hear(self, relayed: Relayed) -> None:
        """Send a message from another node to connections here."""
        about = relayed.about or {}
        excluded, others = set(about.get("exclude") or ()), set(about.get("except") or ())
        found = self._named(about.get("users", ()), ())
        found += [ws for ws in self._named((), about.get("to", ())) if ws.user not in others]
        is_deaf = getattr(self.listener, "is_deaf", None)
        chosen = [ws for ws in found if ws.id not in excluded and not (is_deaf and is_deaf(ws))]
        Endpoint.send(self, chosen, message_of(relayed.payload), compress=about.get("compress"))

    # -- kicks: done here at once, and by the other nodes when they hear of it

    def subscribe_user(self, user: Hashable, channel: str) -> int:
        """Have every connection of a user, on all nodes, join a channel. Returns its number of subscribers here."""
        self.check_user(user)
        count = super().subscribe_user(user, channel)
        self.say("subscribe", channel, [user], [])
        return count

    def unsubscribe_user(self, user: Hashable, channel: str, *, everywhere: bool = True) -> int:
        """Have every connection of a user leave a channel, on all nodes. Returns how many subscribers remain here."""
        self.check_user(user)
        count = super().unsubscribe_user(user, channel)
        if everywhere:
            self.say("unsubscribe", channel, [user], [])
        return count

    def close_user(self, user: Hashable, code: int = 4001, reason: str = "logged out") -> int:
        """Close every connection of a user, on all nodes. Returns how many it closed here; see `flush`."""
        self.check_user(user)
        count = super().close_user(user, code, reason)
        self.say("close", {"users": [user]}, code, reason)
        return count

    def close_session(self, session_id: str, code: int = 4001, reason: str = "logged out") -> int:
        """Close every connection with an HTTP session, on all nodes. Returns how many it closed here; see `flush`."""
        count = super().close_session(session_id, code, reason)
        self.say("close", {"session": session_id}, code, reason)
        return count

    def visibility_changed(self, user: Hashable, *, everywhere: bool = True) -> None:
        """Ask ``can_see`` again about a user, on all nodes."""
        self.check_user(user)
        super().visibility_changed(user)
        if everywhere:
            self.say("visibility", user)

    def check_user(self, user: Hashable) -> None:
        """Raises TypeError for a user whom other nodes could not name."""
        if self._kicks is not None:
            user_name(self.path, user)

    def say(self, do: str, *arguments: Any) -> None:
        """Have other nodes do what was done here."""
        if self._kicks is not None:
            self._running()
            self._kicks.say(do, *arguments)

    def kick_elsewhere(self, do: str, channel: str, *, users: Iterable[Any] = (), to: Iterable[str] = ()) -> None:
        """Have connections on other nodes join ("subscribe") or leave ("unsubscribe") a channel."""
        users, ids = list(users), list(chain.from_iterable(self._elsewhere(to).values()))
        if users or ids:
            self.say(do, channel, users, ids)

    def close_elsewhere(self, channel: str | None, to: Iterable[str], code: int, reason: str) -> None:
        """Close connections on other nodes by channel and by id."""
        ids = list(chain.from_iterable(self._elsewhere(to).values()))
        if channel is not None or ids:
            self.say("close", {"to": ids} if channel is None else {"to": ids, "channel": channel}, code, reason)

    async def flush(self) -> None:
        """Wait until the store has all that this server said before: messages to logs, kicks and log-outs.

        Raises BackplaneError where it does not answer within ``backplane_timeout``; kicks reach it later then.
        """
        await self._running().flush()

    def obey(self, do: str, arguments: list[Any]) -> None:
        """Do what another node has said to those who are here."""
        if do == "subscribe":
            self._let_in(*arguments)
        elif do == "unsubscribe":
            self._take_out(*arguments)
        elif do == "close":
            self._close_here(*arguments)
        elif do == "visibility":
            super().visibility_changed(*arguments)

    def _let_in(self, channel: str, users: list[Any], ids: list[str]) -> None:
        enter = getattr(self.listener, "enter", None) or (lambda ws, channel: self.subscribe(channel, ws))
        for ws in self._named(users, ids):
            enter(ws, channel)

    def _take_out(self, channel: str, users: list[Any], ids: list[str]) -> None:
        for user in users:
            super().unsubscribe_user(user, channel)
        for ws in self._named((), ids):
            self.unsubscribe(channel, ws)

    def _close_here(self, whom: dict[str, Any], code: int, reason: str) -> None:
        check_close(code, reason)
        for user in whom.get("users", ()):
            super().close_user(user, code, reason)
        if "session" in whom:
            super().close_session(whom["session"], code, reason)
        members = self.subscribers(whom["channel"]) if "channel" in whom else []
        self._close([*self._named((), whom.get("to", ())), *members], code, reason)

    def _named(self, users: Iterable[Any], ids: Iterable[str]) -> list[WebSocket]:
        found = [ws for user in users for ws in self._members(USER_KIND, user)]
        return list(dict.fromkeys([*found, *(ws for name in ids if (ws := self._find(name)) is not None)]))

    def let_go(self) -> None:
        """Nobody knows who should have gone: close all connections, as fast as at a restart; they may come back."""
        if self._letting_go is None or self._letting_go.done():
            node, everybody = self._running(), self._members(EVERYONE_KIND, None)
            self.life.refuse_pending(lambda request: True, CUT_OFF[1], 503)
            self._letting_go = node.spawn(close_slowly(everybody, node.options.drain_rate, *CUT_OFF))


def ids_of(connections: Any) -> list[str] | None:
    """Returns the ids of connections; None where none are named."""
    if connections is None:
        return None
    return [each.id if isinstance(each, WebSocket) else each for each in many(connections)]
