"""Frames of Pusher's protocol: what clients send, and what the server says. ``data`` is JSON within a string."""

from typing import Annotated, Any, TypeAlias

import msgspec
import orjson
from msgspec import Meta

from ..errors import FastWSError
from ..nesting import nesting_fault

__all__ = [
    "INVALID",
    "PING",
    "PONG",
    "Fault",
    "Frame",
    "Member",
    "Signin",
    "Subscribe",
    "Unsubscribe",
    "answer",
    "decode",
    "error",
    "event",
    "inner",
    "member_of",
    "relayed",
    "user_of",
]

MOST_USER = 128  # characters of a user's id
INVALID = 4200  # as Reverb says it, of a frame that cannot be read

Id: TypeAlias = str | int


class Fault(FastWSError):
    """A frame is answered with `pusher:error`; with ``channel``, that channel gets `pusher:subscription_error`, too."""

    def __init__(self, code: int, message: str, channel: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.channel = channel


class Frame(msgspec.Struct, gc=False):
    """Any frame of a client's."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    channel: str | None = None


class Subscribe(msgspec.Struct, gc=False):
    """The data of ``pusher:subscribe``."""

    channel: str
    auth: str | None = None
    channel_data: str | None = None


class Unsubscribe(msgspec.Struct, gc=False):
    """The data of ``pusher:unsubscribe``."""

    channel: str


class Signin(msgspec.Struct, gc=False):
    """The data of ``pusher:signin``."""

    auth: str
    user_data: str


class ChannelData(msgspec.Struct, gc=False):
    """Who is in a presence channel, as the application's backend has signed it."""

    user_id: Id
    user_info: Any = None


class UserData(msgspec.Struct, gc=False):
    """Who signs in, as the application's backend has signed it."""

    id: Annotated[str, Meta(min_length=1, max_length=MOST_USER)]


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A user with what is told of him or her, which several connections may share."""

    user_id: str
    info: Any

    @property
    def text(self) -> str:
        """The same as a text, which `member_of` reads."""
        return orjson.dumps([self.user_id, self.info], option=orjson.OPT_SORT_KEYS).decode()


_frames = msgspec.json.Decoder(Frame)
_members = msgspec.json.Decoder(Member)
_decoders: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (Subscribe, Unsubscribe, Signin, ChannelData, UserData)
}


def decode(message: str | bytes) -> Frame:
    """Returns a client's frame; raises Fault."""
    if not isinstance(message, str):
        raise Fault(INVALID, "Invalid message format: binary frames are not supported")
    try:
        return _frames.decode(message)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as wrong:
        raise Fault(INVALID, f"Invalid message format: {wrong}") from None


def inner(raw: msgspec.Raw | str, kind: type) -> Any:
    """Returns the data of a frame, which is JSON or JSON within a string, as one of the structs; raises Fault."""
    try:
        if not isinstance(raw, str) and bytes(raw).startswith(b'"'):
            raw = msgspec.json.decode(raw, type=str)
        return _decoders[kind].decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as wrong:
        raise Fault(INVALID, f"Invalid message format: {wrong}") from None


def member_of(channel_data: str) -> Member:
    """Returns who joins a presence channel; raises Fault."""
    if nesting_fault(channel_data.encode("utf-8", "replace")):
        raise Fault(INVALID, "Invalid channel_data: user_info is nested too deeply")
    data: ChannelData = inner(channel_data, ChannelData)
    user_id = str(data.user_id)
    if not 1 <= len(user_id) <= MOST_USER:
        raise Fault(INVALID, f"Invalid channel_data: a user_id has 1 to {MOST_USER} characters")
    member = Member(user_id, data.user_info)
    try:
        member.text  # noqa: B018  (numbers that no JSON has, half characters)
    except TypeError as wrong:
        raise Fault(INVALID, f"Invalid channel_data: {wrong}") from None
    return member


def known_member(text: str) -> Member:
    """Returns a member from `Member.text`."""
    return _members.decode(text)


def user_of(user_data: str) -> str:
    """Returns who signs in; raises Fault."""
    data: UserData = inner(user_data, UserData)
    return data.id


def relayed(raw: msgspec.Raw) -> Any:
    """Returns the data of a client event as it is sent on; raises Fault for what not every client could read."""
    fault = nesting_fault(bytes(raw))
    if fault:
        raise Fault(INVALID, f"Invalid message format: {fault}")
    return orjson.Fragment(bytes(raw))


def event(name: str, channel: str | None, data: Any) -> dict[str, Any]:
    """Returns a frame with an event; ``data`` is sent as it is."""
    frame = {"event": name, "data": data}
    if channel is not None:
        frame["channel"] = channel
    return frame


def answer(name: str, data: Any, channel: str | None = None) -> dict[str, Any]:
    """Returns a frame whose data is JSON within a string, as all of the server's own are."""
    return event(name, channel, orjson.dumps(data).decode())


def error(code: int, message: str) -> dict[str, Any]:
    """Returns ``pusher:error``."""
    return answer("pusher:error", {"code": code, "message": message})


PING = orjson.dumps(answer("pusher:ping", {})).decode()
PONG = orjson.dumps(answer("pusher:pong", {})).decode()
