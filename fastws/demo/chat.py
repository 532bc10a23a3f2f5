"""The demo's chat: channels, whispers, invitations, blocks, typing notices, and several devices per user.

Log in by `POST /login` with the JSON text `{"name": "ann"}`, then open `/ws/chat/{channel}` with the cookie from the
answer; from then on JSON objects are exchanged over that one socket. A name is the only proof of identity: whoever logs
in as `ann` is another device of ann. Each of a user's sockets is a tab; all of them are in the same channels.

Requests of a client:

| type           | fields               | effect                                                      |
|----------------|----------------------|-------------------------------------------------------------|
| subscribe      | channel              | all tabs of the user join the channel                       |
| unsubscribe    | channel              | all tabs of the user leave the channel                      |
| message        | channel, message     | sent to all members, including the sender's tabs            |
| whisper        | channel, to, message | sent to the members in `to` (a list) and the sender's tabs  |
| typing         | channel              | sent to all other members                                   |
| invite         | channel, user        | all tabs of that user, who must be online, join the channel |
| kick           | channel, user        | all tabs of that member leave the channel                   |
| block, unblock | user                 | the sender appears offline to that user, or no longer does  |

What the client gets:

| type     | fields                                | when                                                         |
|----------|---------------------------------------|--------------------------------------------------------------|
| welcome  | user, id, blocked                     | first; `blocked` lists the users whom this user blocks       |
| presence | channel, event, users                 | event "list": this tab joined the channel; each of `users`   |
|          |                                       | has user, since, devices                                     |
| presence | channel, event, user                  | event "join" (with `since`) or "leave" of another member     |
| left     | channel                               | this tab left the channel                                    |
| message  | channel, from, message, timestamp     | timestamp: milliseconds since 1970                           |
| whisper  | channel, from, to, message, timestamp | `to`: the recipients who were there                          |
| typing   | channel, from                         | another member is typing                                     |
| invite   | channel, user, by                     | sent to the invited user only                                |
| kick     | channel, user, by                     | sent to the kicked user as well, before `left`               |
| blocked  | users                                 | the list of users whom this user blocks has changed          |
| error    | code, message                         | the last request was refused and had no effect               |

A blocked user is told nothing that would show the blocker to be there: no presence, no typing notice, no name among the
recipients of a whisper. What a user says or does in a channel is sent to all its members: a block hides, but does not
silence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from fastws import Presence, Reject, Request, WebSocket
from fastws.demo.ended import Ended
from fastws.demo.hosts import Guarded, Hosts

MAX_NAME_CHARACTERS = 32
NAME_RULE = f"must be 1 to {MAX_NAME_CHARACTERS} printable characters"
MAX_MESSAGE_CHARACTERS = 4000
MAX_CHANNELS = 100
MAX_BLOCKED = 1000

# The types of requests; Chat has a handle_... method for each.
REQUEST_TYPES = ("subscribe", "unsubscribe", "message", "whisper", "typing", "invite", "kick", "block", "unblock")


class Refused(Exception):
    """A request is refused: it is answered with an `error` and has no effect."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = {"type": "error", "code": code, "message": message}


class Chat(Guarded):
    """The chat's listener. A member of a channel is a user with at least one tab in it."""

    def __init__(self, hosts: Hosts) -> None:
        super().__init__(hosts)
        self.ended = Ended()
        self.blocked: dict[str, set[str]] = {}  # by the user who blocks

    def name_in(self, session: Mapping[str, Any] | None) -> str | None:
        """Returns the name of the user whom a session belongs to; None if nobody is logged in."""
        return None if not session or self.ended.has(session) else session.get("name")

    def on_handshake(self, request: Request) -> Reject | None:
        refusal = super().on_handshake(request)
        if refusal is not None:
            return refusal
        name = self.name_in(request.session)
        if name is None:
            return Reject(401, "log in first: POST /login")
        if not is_name(request.path_parameters["channel"]):
            return Reject(400, f"a channel name {NAME_RULE}")
        request.user = name
        return None

    def can_see(self, viewer: Any, user: Any) -> bool:
        return viewer not in self.blocked.get(user, ())

    def on_open(self, ws: WebSocket) -> None:
        ws.send({"type": "welcome", "user": ws.user, "id": ws.id, "blocked": sorted(self.blocked.get(ws.user, ()))})
        others = tabs(ws, ws.user)
        ws.manager.subscribe_user(ws.user, ws.request.path_parameters["channel"])
        for channel in {channel for other in others for channel in other.channels}:
            ws.subscribe(channel)

    def on_message(self, ws: WebSocket, message: str | bytes) -> dict[str, Any] | None:
        try:
            request = parse(message)
            kind = text(request, "type")
            if kind not in REQUEST_TYPES:
                raise Refused("unknown_type", f"type must be one of {', '.join(REQUEST_TYPES)}")
            getattr(self, f"handle_{kind}")(ws, request)
        except Refused as refused:
            return refused.answer
        return None

    def on_subscribe(self, ws: WebSocket, channel: str, subscribers: int) -> None:
        if subscribers == 1:
            ws.manager.watch_presence(channel)

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> None:
        if subscribers == 0:
            ws.manager.unwatch_presence(channel)
        ws.send({"type": "left", "channel": channel})

    def may_kick(self, ws: WebSocket, channel: str, user: str) -> bool:
        """Returns whether a user may kick another. Here any member may; a subclass can be stricter."""
        return True

    def handle_subscribe(self, ws: WebSocket, request: dict[str, Any]) -> None:
        channel = text(request, "channel")
        if not is_name(channel):
            raise Refused("bad_channel", f"a channel name {NAME_RULE}")
        check_room(ws)
        ws.manager.subscribe_user(ws.user, channel)

    def handle_unsubscribe(self, ws: WebSocket, request: dict[str, Any]) -> None:
        ws.manager.unsubscribe_user(ws.user, own_channel(ws, request))

    def handle_message(self, ws: WebSocket, request: dict[str, Any]) -> None:
        channel = own_channel(ws, request)
        ws.manager.broadcast(channel, make_message("message", ws, channel, request))

    def handle_whisper(self, ws: WebSocket, request: dict[str, Any]) -> None:
        channel = own_channel(ws, request)
        named = request.get("to")
        if not isinstance(named, list):
            raise Refused("bad_field", '"to" must be a list of names')
        names = {name for name in named if isinstance(name, str)}
        # A member without a tab is just reloading the page: a whisper would be lost.
        to = sorted(name for name, there in others_in(ws, channel).items() if name in names and there.devices)
        if not to:
            raise Refused("no_recipient", f"none of the recipients is in {channel}")
        whisper = make_message("whisper", ws, channel, request)
        for reader in (ws.user, *to):
            # One recipient may be hidden from another.
            seen = [name for name in to if ws.manager.sees(reader, name)]
            ws.manager.broadcast(channel, whisper | {"to": seen}, users=reader)

    def handle_typing(self, ws: WebSocket, request: dict[str, Any]) -> None:
        channel = own_channel(ws, request)
        typing = {"type": "typing", "channel": channel, "from": ws.user}
        ws.manager.notify(channel, ws.user, typing, exclude=tabs(ws, ws.user))

    def handle_invite(self, ws: WebSocket, request: dict[str, Any]) -> None:
        channel, user = own_channel(ws, request), text(request, "user")
        guests = tabs(ws, user) if user != ws.user and ws.manager.sees(ws.user, user) else []
        if not guests:
            raise Refused("not_online", f"nobody else called {user} is online")
        if user in others_in(ws, channel):
            raise Refused("already_there", f"{user} is already in {channel}")
        check_room(guests[0])
        ws.manager.subscribe_user(user, channel)
        invitation = {"type": "invite", "channel": channel, "user": user, "by": ws.user}
        ws.manager.broadcast(channel, invitation, users=user)

    def handle_kick(self, ws: WebSocket, request: dict[str, Any]) -> None:
        channel, user = own_channel(ws, request), text(request, "user")
        if user not in others_in(ws, channel):
            raise Refused("no_such_member", f"nobody else called {user} is in {channel}")
        if not self.may_kick(ws, channel, user):
            raise Refused("not_allowed", f"you may not kick {user}")
        # Anyone who could not see the kicked user must not see the kick.
        ws.manager.notify(channel, user, {"type": "kick", "channel": channel, "user": user, "by": ws.user})
        ws.manager.unsubscribe_user(user, channel)

    def handle_block(self, ws: WebSocket, request: dict[str, Any]) -> None:
        user = text(request, "user")
        blocked = self.blocked.get(ws.user, set())
        if not is_name(user) or user == ws.user:
            raise Refused("bad_user", f"you can only block somebody else, whose name {NAME_RULE}")
        if len(blocked) >= MAX_BLOCKED:
            raise Refused("too_many_blocked", f"you can block at most {MAX_BLOCKED} users")
        self.block(ws, blocked | {user})

    def handle_unblock(self, ws: WebSocket, request: dict[str, Any]) -> None:
        user = text(request, "user")
        self.block(ws, self.blocked.get(ws.user, set()) - {user})

    def block(self, ws: WebSocket, users: set[str]) -> None:
        """From now on this user appears offline to `users`, and to nobody else."""
        if users:
            self.blocked[ws.user] = users
        else:
            self.blocked.pop(ws.user, None)
        ws.manager.visibility_changed(ws.user)
        ws.manager.send_to_user(ws.user, {"type": "blocked", "users": sorted(users)})


def is_name(name: object) -> bool:
    if not isinstance(name, str) or name in (".", ".."):  # browsers remove these from a path
        return False
    return 0 < len(name) <= MAX_NAME_CHARACTERS and name == name.strip() and name.isprintable()


def parse(message: str | bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(message)
    except orjson.JSONDecodeError:
        raise Refused("bad_json", "a request must be JSON") from None
    if not isinstance(request, dict):
        raise Refused("bad_json", "a request must be a JSON object")
    return request


def text(request: dict[str, Any], field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str):
        raise Refused("bad_field", f'"{field}" must be a string')
    return value


def own_channel(ws: WebSocket, request: dict[str, Any]) -> str:
    """Returns the channel of a request; the sender must be in it."""
    channel = text(request, "channel")
    if channel not in ws.channels:
        raise Refused("not_a_member", f"you are not in {channel}")
    return channel


def check_room(ws: WebSocket) -> None:
    if len(ws.channels) >= MAX_CHANNELS:
        raise Refused("too_many_channels", f"a user can be in at most {MAX_CHANNELS} channels")


def make_message(kind: str, ws: WebSocket, channel: str, request: dict[str, Any]) -> dict[str, Any]:
    message = text(request, "message")
    if not message.strip():
        raise Refused("bad_field", '"message" is empty')
    if len(message) > MAX_MESSAGE_CHARACTERS:
        raise Refused("too_long", f"a message can have at most {MAX_MESSAGE_CHARACTERS} characters")
    now = int(time.time() * 1000)
    return {"type": kind, "channel": channel, "from": ws.user, "message": message, "timestamp": now}


def tabs(ws: WebSocket, user: str) -> list[WebSocket]:
    """Returns all connections of a user on the endpoint of `ws`."""
    connections = ws.manager.connections
    return [connections[each] for each in ws.manager.users.get(user, ()) if each in connections]


def others_in(ws: WebSocket, channel: str) -> dict[Any, Presence]:
    """Returns the members whom the user of `ws` can see, except themselves."""
    people = ws.manager.presence(channel, viewer=ws.user)
    return {user: there for user, there in people.items() if user != ws.user}
