"""The demo's chat: channels, whispers, invitations, blocks, typing notices, and several devices per user.

Log in by `POST /login` with the JSON text `{"name": "ann"}`, then open `/ws/chat`, or `/ws/chat/{room}`, with the
cookie that came. A name is all the proof of identity there is: whoever logs in as `ann` is one more device of ann. Each
of ann's sockets is a tab; all of them are in the same channels.

It speaks fastws.v1, as `ChannelListener` does. What is the chat's own:

- A `welcome` has as its `data` `{"blocked": [...]}`: whom this user blocks.
- Whoever subscribes or unsubscribes does so with all tabs. A new tab comes into all channels of the user.
- A message is text, of up to 4,000 characters. A whisper comes to the tab that sent it as well; its `to` are those of
  the named who were there.
- What else one can do is a `call`, whose `params` are an object:

| method         | params        | effect                                                      |
|----------------|---------------|-------------------------------------------------------------|
| invite         | channel, user | all tabs of that user, who is online, are in the channel    |
| kick           | channel, user | all tabs of that member are out of the channel              |
| block, unblock | user          | to that user the sender is offline; or is so no more        |

- And it is told by a `direct`, whose `message` has an `event`:

| event   | fields            | when                                                |
|---------|-------------------|-----------------------------------------------------|
| invite  | channel, user, by | to the invited alone                                |
| kick    | channel, user, by | to the kicked as well, before they are unsubscribed |
| blocked | users             | whom this user blocks has changed                   |

Whom a user blocked is told nothing that would show that user to be there: no presence, no typing notice, no name among
a whisper's readers, no count that includes them. What a user says or does in a channel goes to all of it: a block
hides, and silences nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastws import ConnectionManager, Presence, Reject, Request, WebSocket
from fastws.access.rules import ChannelRule, Rules
from fastws.cluster.shared import SharedDict
from fastws.demo.ended import Ended
from fastws.demo.hosts import Hosts
from fastws.demo.rooms import Rooms
from fastws.v1 import frames
from fastws.v1.decisions import Connect, Refused
from fastws.v1.gate import content
from fastws.v1.listener import ChannelListener, now

MAX_NAME_CHARACTERS = 32
NAME_RULE = f"must be 1 to {MAX_NAME_CHARACTERS} printable characters"
MAX_MESSAGE_CHARACTERS = 4000
MAX_CHANNELS = 100
MAX_BLOCKED = 1000

RULES = [ChannelRule(pattern="*", subscribe="user", publish="member", whisper="member", presence=True)]


class Chat(ChannelListener):
    """A member is a user who has at least one tab in the channel. `shared` gives the dicts that all nodes have."""

    def __init__(self, hosts: Hosts, shared: Callable[[str], SharedDict] = SharedDict) -> None:
        super().__init__(Rules(RULES), backend=Acts(self), max_channels=MAX_CHANNELS)
        self._hosts = hosts
        # Tabs that are on their way into a channel that their user is in, and who has invited the user.
        self._following: dict[tuple[WebSocket, str], str | None] = {}
        self.ended = Ended(shared("chat.ended"))
        self.rooms = Rooms(shared("chat.rooms"), self._room_changed)
        self.blocked = shared("chat.blocked")  # lists of names, by the user who blocks
        self.blocked.on_change(self._blocked_changed)

    def name_in(self, session: Mapping[str, Any] | None) -> str | None:
        """Returns the name of the user whom a session belongs to; None if nobody is logged in."""
        return None if not session or self.ended.has(session) else session.get("name")

    def on_handshake(self, request: Request) -> Any:
        headers = request.headers
        refusal = self._hosts.refusal(headers.get("host", ""), headers.get("origin"), request.is_secure)
        if refusal is not None:
            return refusal
        name = self.name_in(request.session)
        if name is None:
            return Reject(401, "log in first: POST /login")
        room = request.path_parameters.get("room")
        if room is not None and not is_name(room):
            return Reject(400, f"a channel name {NAME_RULE}")
        request.user = name
        return super().on_handshake(request)

    def can_see(self, viewer: Any, user: Any) -> bool:
        return viewer not in self.blocked.get(user, ())

    def may_kick(self, ws: WebSocket, channel: str, user: str) -> bool:
        """Returns whether a user may kick another. Here any member may; a subclass can be stricter."""
        return True

    # The tabs of a user are in the same channels.

    def _welcome(self, ws: WebSocket, frame: frames.Hello) -> Any:
        welcome = {"blocked": self.blocked.get(ws.user, [])}
        ws.data["connect"] = Connect(user=ws.user, channels=self.rooms.of(ws.user), welcome=welcome)
        return super()._welcome(ws, frame)

    def on_subscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        super().on_subscribe(ws, channel, subscribers)
        if (ws, channel) not in self._following:
            self.rooms.enter(ws.user, channel)
            return
        by = self._following.pop((ws, channel))
        if not self.rooms.has(ws.user, channel):  # the user has left meanwhile
            ws.unsubscribe(channel)
        elif by is not None:
            ws.send(self.direct({"event": "invite", "channel": channel, "user": ws.user, "by": by}))

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        super().on_unsubscribe(ws, channel, subscribers)
        if ws.is_open:  # a tab that closes takes nobody along
            self.rooms.leave(ws.user, channel)

    def on_close(self, ws: WebSocket, code: int, reason: str) -> Any:
        super().on_close(ws, code, reason)
        for place in [place for place in self._following if place[0] is ws]:
            del self._following[place]

    def on_user_offline(self, user: Any) -> Any:
        super().on_user_offline(user)
        self.rooms.end(user)

    def _room_changed(self, user: str, channel: str, is_there: bool, by: str | None) -> None:
        """A user has come or gone, with all tabs, on whatever node."""
        if self._manager is None:  # nobody is here yet
            return
        if not is_there:
            self._manager.unsubscribe_user(user, channel, everywhere=False)
            return
        for tab in tabs(self._manager, user):
            if channel not in tab.channels and (tab, channel) not in self._following:
                self._following[tab, channel] = by
                self.enter(tab, channel)

    def _subscribe(self, ws: WebSocket, frame: frames.Subscribe) -> Awaitable[None] | None:
        if not is_name(frame.channel):
            raise Refused("bad_channel", f"a channel name {NAME_RULE}")
        return super()._subscribe(ws, frame)

    def _blocked_changed(self, user: str, blocked: list[str] | None, is_deletion: bool) -> None:
        """Whom a user blocks has changed, on whatever node."""
        if self._manager is not None:
            self._manager.visibility_changed(user, everywhere=False)
            # A tab that has not said hello yet is told by its welcome.
            told = [tab for tab in tabs(self._manager, user) if not self.is_deaf(tab)]
            self._manager.send(told, self.direct({"event": "blocked", "users": blocked or []}))

    # Nobody is counted, or named, to those who may not see them.

    def _tell_subscribed(
        self,
        ws: WebSocket,
        channel: str,
        subscribers: int,
        answer: Mapping[str, Any],
        id: frames.Id,
        missed: Any = None,
    ) -> None:
        seen = devices_in(ws, channel) + (channel not in ws.channels)
        super()._tell_subscribed(ws, channel, seen, answer, id, missed)

    def _acknowledge(self, ws: WebSocket, frame: Any, **more: Any) -> None:
        if isinstance(frame, frames.Publish):
            more["connections"] = devices_in(ws, frame.channel) - (frame.exclude == "self")
        super()._acknowledge(ws, frame, **more)

    def _deliver_whisper(self, ws: WebSocket, frame: frames.Whisper, message: Any, to: list[Any]) -> None:
        channel, manager = frame.channel, ws.manager
        # One whose page reloads just now is a member without a tab: a whisper would be lost.
        others = others_in(ws, channel)
        named = sorted(name for name, there in others.items() if name in to and there.devices)
        if not named:
            raise Refused("no_recipient", f"none of the recipients is in {channel}")
        sender = {"user": ws.user, "id": ws.id}
        whisper = {"type": "whisper", "channel": channel, **content(message), "from": sender, "time": now()}
        for reader in (ws.user, *named):
            # One reader may be hidden from another.
            seen = [name for name in named if manager.sees(reader, name)]
            manager.broadcast(channel, whisper | {"to": seen}, users=reader)
        self._acknowledge(ws, frame, connections=sum(others[name].devices for name in named))


class Acts:
    """The chat's backend, in the same process: what it takes for a message, and its calls."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def asks(self, event: str) -> bool:
        return event in ("publish", "call")

    async def connect(self, request: Request, *, ws: WebSocket | None = None) -> Connect:
        raise NotImplementedError

    async def subscribe(self, ws: WebSocket, channel: str) -> Mapping[str, Any]:
        raise NotImplementedError

    async def publish(self, ws: WebSocket, channel: str, message: Any, to: Any) -> Mapping[str, Any]:
        if not isinstance(message, str):
            raise Refused("bad_field", '"message" must be a string')
        if not message.strip():
            raise Refused("bad_field", '"message" is empty')
        if len(message) > MAX_MESSAGE_CHARACTERS:
            raise Refused("too_large", f"a message can have at most {MAX_MESSAGE_CHARACTERS} characters")
        return {}

    async def call(self, ws: WebSocket, method: str, params: Any) -> Mapping[str, Any]:
        acts: dict[str, Any] = {"invite": self.invite, "kick": self.kick, "block": self.block, "unblock": self.unblock}
        if method not in acts:
            raise Refused("refused", f"method must be one of {', '.join(acts)}")
        done = acts[method](ws, params if isinstance(params, dict) else {})
        if done is not None:
            await done
        return {"result": None}

    def tell(self, event: Mapping[str, Any]) -> None:
        pass

    async def invite(self, ws: WebSocket, params: dict[str, Any]) -> None:
        channel, user = own_channel(ws, params), text(params, "user")
        is_seen = user != ws.user and ws.manager.sees(ws.user, user)
        if not is_seen or not await ws.manager.cluster.online([user]):
            raise Refused("not_online", f"nobody else called {user} is online")
        if user in others_in(ws, channel):
            raise Refused("already_there", f"{user} is already in {channel}")
        if len(self._chat.rooms.of(user)) >= MAX_CHANNELS:
            raise Refused("too_many", f"a user can be in at most {MAX_CHANNELS} channels")
        self._chat.rooms.enter(user, channel, ws.user)

    def kick(self, ws: WebSocket, params: dict[str, Any]) -> None:
        channel, user = own_channel(ws, params), text(params, "user")
        if user not in others_in(ws, channel):
            raise Refused("no_such_member", f"nobody else called {user} is in {channel}")
        if not self._chat.may_kick(ws, channel, user):
            raise Refused("not_allowed", f"you may not kick {user}")
        # Whoever never saw the kicked must not see a kick either.
        notice = {"event": "kick", "channel": channel, "user": user, "by": ws.user}
        ws.manager.notify(channel, user, self._chat.direct(notice))
        self._chat.rooms.leave(user, channel)

    def block(self, ws: WebSocket, params: dict[str, Any]) -> None:
        user = text(params, "user")
        blocked = set(self._chat.blocked.get(ws.user, ()))
        if not is_name(user) or user == ws.user:
            raise Refused("bad_user", f"you can only block somebody else, whose name {NAME_RULE}")
        if len(blocked) >= MAX_BLOCKED:
            raise Refused("too_many_blocked", f"you can block at most {MAX_BLOCKED} users")
        self._hide_from(ws, blocked | {user})

    def unblock(self, ws: WebSocket, params: dict[str, Any]) -> None:
        user = text(params, "user")
        self._hide_from(ws, set(self._chat.blocked.get(ws.user, ())) - {user})

    def _hide_from(self, ws: WebSocket, users: set[str]) -> None:
        """From now on `users`, and nobody else, are those to whom this user is offline."""
        if users:
            self._chat.blocked[ws.user] = sorted(users)
        else:
            self._chat.blocked.pop(ws.user, None)


def is_name(name: object) -> bool:
    if not isinstance(name, str) or name in (".", ".."):  # browsers remove these from a path
        return False
    return 0 < len(name) <= MAX_NAME_CHARACTERS and name == name.strip() and name.isprintable()


def text(params: dict[str, Any], field: str) -> str:
    value = params.get(field)
    if not isinstance(value, str):
        raise Refused("bad_field", f'"{field}" must be a string')
    return value


def own_channel(ws: WebSocket, params: dict[str, Any]) -> str:
    """The channel that a call is about; its sender must be in it."""
    channel = text(params, "channel")
    if channel not in ws.channels:
        raise Refused("not_a_member", f"you are not in {channel}")
    return channel


def tabs(manager: ConnectionManager, user: Any) -> list[WebSocket]:
    """All connections of a user on this node."""
    connections = manager.connections
    return [connections[each] for each in manager.users.get(user, ()) if each in connections]


def devices_in(ws: WebSocket, channel: str) -> int:
    """How many connections in a channel are of users that `ws` can see."""
    return sum(there.devices for there in ws.manager.presence(channel, viewer=ws.user).values())


def others_in(ws: WebSocket, channel: str) -> dict[Any, Presence]:
    """The members whom the user of `ws` can see, but for that user."""
    people = ws.manager.presence(channel, viewer=ws.user)
    return {user: there for user, there in people.items() if user != ws.user}
