"""The demo's chat: channels, whispers, typing notices, and several tabs per user.

A client opens `/ws/chat/{channel}?name=ann`; from then on JSON objects go both ways over the one socket.
A name is all the proof of identity there is: whoever comes as `ann` is one more tab of ann.

What a client sends:

| type        | fields                 | effect                                                       |
|-------------|------------------------|--------------------------------------------------------------|
| subscribe   | channel                | all tabs of the user are in the channel                      |
| unsubscribe | channel                | none is any more                                             |
| message     | channel, message       | to all members, the sender's tabs too                        |
| whisper     | channel, to, message   | to the members named in `to` (a list) and the sender's tabs  |
| typing      | channel                | to all other members; never kept                             |
| kick        | channel, user          | closes every tab of that member with 4000, "kicked"          |

What it gets:

| type        | fields                                | when                                          |
|-------------|---------------------------------------|-----------------------------------------------|
| welcome     | user, id                              | first of all                                  |
| members     | channel, users                        | this tab came into the channel                |
| join, leave | channel, user                         | a member came or went; `leave` also when this tab left |
| message     | channel, from, message, timestamp     | timestamp: milliseconds since 1970            |
| whisper     | channel, from, to, message, timestamp | `to`: those of the named who were there       |
| typing      | channel, from                         |                                               |
| kick        | channel, user, by                     | goes to the kicked as well, before the close  |
| error       | code, message                         | the last request was refused; nothing was done |
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson

from fastws import Listener, Reject, Request, WebSocket

MAX_NAME = 32
NAME_RULE = f"must be 1 to {MAX_NAME} printable characters"
MAX_MESSAGE = 4000
MAX_CHANNELS = 100
KICKED = 4000

# The types of request; Chat has a handle_... for each.
REQUESTS = ("subscribe", "unsubscribe", "message", "whisper", "typing", "kick")


class Refused(Exception):
    """A request that is answered with an `error`, and changes nothing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = {"type": "error", "code": code, "message": message}


class Chat(Listener):
    """A member is a user who has at least one tab in the channel."""

    def __init__(self) -> None:
        # Who joined and has not left, as the members were told. The manager's own lists may be ahead of that: they
        # drop all closed tabs of a user at once, while `on_unsubscribe` comes for one after the other.
        self.members: dict[str, set[str]] = {}

    def on_handshake(self, request: Request) -> Reject | None:
        name = request.query.get("name", "").strip()
        if not is_name(name):
            return Reject(400, f"?name= {NAME_RULE}")
        if not is_name(request.path_parameters["channel"]):
            return Reject(400, f"a channel's name {NAME_RULE}")
        request.user = name
        return None

    def on_open(self, ws: WebSocket) -> None:
        ws.send({"type": "welcome", "user": ws.user, "id": ws.id})
        for other in other_tabs(ws):
            for channel in other.channels:
                ws.subscribe(channel)

    def on_message(self, ws: WebSocket, message: str | bytes) -> dict[str, Any] | None:
        try:
            request = parse(message)
            kind = text(request, "type")
            if kind not in REQUESTS:
                raise Refused("unknown_type", f"type must be one of {', '.join(REQUESTS)}")
            getattr(self, f"handle_{kind}")(ws, text(request, "channel"), request)
        except Refused as refused:
            return refused.answer
        return None

    def on_channel_open(self, channel: str) -> None:
        self.members[channel] = set()

    def on_channel_close(self, channel: str) -> None:
        del self.members[channel]

    def on_subscribe(self, ws: WebSocket, channel: str, subscribers: int) -> None:
        members = self.members[channel]
        is_new = ws.user not in members
        members.add(ws.user)
        ws.send({"type": "members", "channel": channel, "users": sorted(members)})
        if is_new:
            joined = {"type": "join", "channel": channel, "user": ws.user}
            ws.manager.broadcast(channel, joined, exclude=ws)
            for other in other_tabs(ws):
                other.subscribe(channel)

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> None:
        left = {"type": "leave", "channel": channel, "user": ws.user}
        ws.send(left)
        members = self.members[channel]
        if ws.user in members and not any(channel in other.channels for other in other_tabs(ws)):
            members.remove(ws.user)
            ws.manager.broadcast(channel, left)

    def may_kick(self, ws: WebSocket, channel: str, user: str) -> bool:
        """Any member may, since a demo has no owner; a subclass can be stricter."""
        return True

    def handle_subscribe(self, ws: WebSocket, channel: str, request: dict[str, Any]) -> None:
        if not is_name(channel):
            raise Refused("bad_channel", f"a channel's name {NAME_RULE}")
        if len(ws.channels) >= MAX_CHANNELS:
            raise Refused("too_many_channels", f"nobody can be in more than {MAX_CHANNELS}")
        ws.subscribe(channel)

    def handle_unsubscribe(self, ws: WebSocket, channel: str, request: dict[str, Any]) -> None:
        must_be_member(ws, channel)
        for other in other_tabs(ws):
            other.unsubscribe(channel)
        ws.unsubscribe(channel)

    def handle_message(self, ws: WebSocket, channel: str, request: dict[str, Any]) -> None:
        must_be_member(ws, channel)
        ws.manager.broadcast(channel, stamped("message", ws, channel, request))

    def handle_whisper(self, ws: WebSocket, channel: str, request: dict[str, Any]) -> None:
        must_be_member(ws, channel)
        named = request.get("to")
        if not isinstance(named, list):
            raise Refused("bad_field", '"to" must be a list of names')
        names = {name for name in named if isinstance(name, str)}
        to = sorted(names.intersection(ws.manager.presence(channel)) - {ws.user})
        if not to:
            raise Refused("no_recipient", f"none of those named is in {channel}")
        whispered = stamped("whisper", ws, channel, request) | {"to": to}
        ws.manager.broadcast(channel, whispered, users=[*to, ws.user])

    def handle_typing(self, ws: WebSocket, channel: str, request: dict[str, Any]) -> None:
        must_be_member(ws, channel)
        typing = {"type": "typing", "channel": channel, "from": ws.user}
        ws.manager.broadcast(channel, typing, exclude=[ws, *other_tabs(ws)])

    def handle_kick(self, ws: WebSocket, channel: str, request: dict[str, Any]) -> None:
        must_be_member(ws, channel)
        user = text(request, "user")
        if user == ws.user or user not in ws.manager.presence(channel):
            raise Refused("no_such_member", f"there is no one else called {user} in {channel}")
        if not self.may_kick(ws, channel, user):
            raise Refused("not_allowed", f"you may not kick {user}")
        kicked = {"type": "kick", "channel": channel, "user": user, "by": ws.user}
        ws.manager.broadcast(channel, kicked)
        for tab in tabs(ws, user):
            tab.close(KICKED, "kicked")


def is_name(name: str) -> bool:
    if name in (".", ".."):  # a browser takes them out of a path
        return False
    return 0 < len(name) <= MAX_NAME and name == name.strip() and name.isprintable()


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


def must_be_member(ws: WebSocket, channel: str) -> None:
    if channel not in ws.channels:
        raise Refused("not_a_member", f"you are not in {channel}")


def stamped(kind: str, ws: WebSocket, channel: str, request: dict[str, Any]) -> dict[str, Any]:
    message = text(request, "message")
    if not message.strip():
        raise Refused("bad_field", '"message" is empty')
    if len(message) > MAX_MESSAGE:
        raise Refused("too_long", f"a message may have {MAX_MESSAGE} characters")
    now = int(time.time() * 1000)
    return {"type": kind, "channel": channel, "from": ws.user, "message": message, "timestamp": now}


def tabs(ws: WebSocket, user: str) -> list[WebSocket]:
    """All connections of a user on the endpoint that `ws` is on."""
    connections = ws.manager.connections
    return [connections[each] for each in ws.manager.users.get(user, ()) if each in connections]


def other_tabs(ws: WebSocket) -> Iterator[WebSocket]:
    return (tab for tab in tabs(ws, ws.user) if tab is not ws)
