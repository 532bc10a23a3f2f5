"""What clients of fastws.v1 send: one declaration each, from which the checks come."""

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from .decisions import Refused

__all__ = [
    "Authenticate",
    "Call",
    "Frame",
    "Hello",
    "Id",
    "Presence",
    "Publish",
    "Subscribe",
    "Typing",
    "Unsubscribe",
    "Whisper",
    "decode",
    "named",
    "valid_channel",
]

SAFE = 2**53 - 1  # what every JSON parser reads exactly (RFC 8259 6)
MOST_ID = 64  # characters
MOST_NAME = 255  # bytes, of a channel
MOST_READERS = 1000  # of a whisper
MOST_POSITION = 64
MOST_TEXT = 128
MOST_KEY = 255

Whole: TypeAlias = Annotated[int, Meta(ge=-SAFE, le=SAFE)]
Id: TypeAlias = Whole | Annotated[str, Meta(max_length=MOST_ID)] | None
User: TypeAlias = Whole | str
Position: TypeAlias = Annotated[str, Meta(max_length=MOST_POSITION)] | None


class Frame(msgspec.Struct, tag_field="type", kw_only=True, gc=False):
    """Any of them. What has an id is answered under it."""

    id: Id = None


class Hello(Frame, tag="hello"):
    """The first frame. ``channels``: name to the last position seen, or None."""

    version: Literal[1]
    channels: dict[str, Position] = {}
    client: Annotated[str, Meta(max_length=MOST_TEXT)] | None = None


class Subscribe(Frame, tag="subscribe"):
    """To be in a channel."""

    channel: str
    position: Position = None


class Unsubscribe(Frame, tag="unsubscribe"):
    """To leave it."""

    channel: str


class Publish(Frame, tag="publish"):
    """A message to all members of a channel; ``message`` is JSON that is passed on as it came.

    ``key`` is given if and only if the channel keeps the latest message of each key.
    """

    channel: str
    message: msgspec.Raw
    exclude: Literal["self"] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=MOST_KEY)] | None = None


class Whisper(Frame, tag="whisper"):
    """A message to some members of a channel, by user."""

    channel: str
    to: Annotated[list[User], Meta(min_length=1, max_length=MOST_READERS)]
    message: msgspec.Raw


class Typing(Frame, tag="typing"):
    """The user types, in a channel."""

    channel: str


class Presence(Frame, tag="presence"):
    """To get the list of those in a channel."""

    channel: str


class Call(Frame, tag="call"):
    """A question to the backend; ``params`` is any JSON."""

    method: Annotated[str, Meta(min_length=1, max_length=MOST_TEXT)]
    params: msgspec.Raw = msgspec.Raw(b"null")


class Authenticate(Frame, tag="authenticate"):
    """A fresh token of the same user."""

    token: str


AnyFrame: TypeAlias = Hello | Subscribe | Unsubscribe | Publish | Whisper | Typing | Presence | Call | Authenticate
TYPES = ", ".join(kind.__struct_config__.tag for kind in AnyFrame.__args__)

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
MISSING = re.compile(r"Object missing required field `(\w+)`").match
AT = re.compile(r"(.*?) - at `\$\.?(.*?)`$", re.DOTALL).match

_decoder: msgspec.json.Decoder[AnyFrame] = msgspec.json.Decoder(AnyFrame)
_any = msgspec.json.Decoder(dict[str, Any])


def decode(message: str | bytes) -> AnyFrame | None:
    """Returns the frame that a message is, None for ``{}``, a sign of life; raises Refused for anything else."""
    if isinstance(message, bytes):
        raise Refused("bad_json", "a frame is JSON in a text message: this one was binary")
    try:
        return _decoder.decode(message)
    except msgspec.ValidationError as error:
        fault = str(error)
    except RecursionError:
        raise Refused("bad_json", "the frame is not JSON that can be read: it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise Refused("bad_json", f"the frame is not a JSON object: {error}") from None
    _explain(message, fault)
    return None


def _explain(message: str, fault: str) -> None:
    """A message is JSON and no frame: unless it is a sign of life, Refused says what is wrong with it."""
    if fault.startswith("Expected `object`, got") and "- at" not in fault:
        raise Refused("bad_json", f"the frame is not a JSON object: {_lowered(fault)}")
    missing = MISSING(fault)
    if missing is not None and missing[1] == "type":
        if not message.strip(" \t\r\n")[1:-1].strip(" \t\r\n"):
            return
        raise Refused("bad_field", f'"type" is missing: give one of {TYPES}')
    at = AT(fault)
    if at is not None and at[2] == "type":
        if at[1].startswith("Invalid value"):
            raise Refused("unknown_type", f'"type" is unknown: give one of {TYPES}')
        raise Refused("bad_field", f'"type" is wrong: {_lowered(at[1])}')
    if missing is not None:
        raise Refused("bad_field", f'"{missing[1]}" is missing')
    if at is not None:
        raise Refused("bad_field", f'"{at[2]}" is wrong: {_lowered(at[1])}')
    raise Refused("bad_field", _lowered(fault))


def _lowered(fault: str) -> str:
    return fault[:1].lower() + fault[1:]


def named(message: str | bytes) -> dict[str, Any]:
    """Returns the ``id`` and ``channel`` of a frame that was refused, as far as they can be told."""
    try:
        frame = _any.decode(message)
    except (ValueError, RecursionError):
        return {}
    found = {}
    name, channel = frame.get("id"), frame.get("channel")
    if (type(name) is int and -SAFE <= name <= SAFE) or (isinstance(name, str) and len(name) <= MOST_ID):
        found["id"] = name
    if isinstance(channel, str) and not channel_fault(channel):
        found["channel"] = channel
    return found


def valid_channel(name: str) -> str:
    """Returns the name; raises Refused where no channel can have it."""
    fault = channel_fault(name)
    if fault:
        raise Refused("bad_channel", fault)
    return name


def channel_fault(name: str) -> str:
    """What is wrong with a channel's name; "" where nothing is."""
    if 0 < len(name) <= MOST_NAME and name.isascii() and name.isprintable():
        return ""  # most of them: every frame comes by here
    if not 0 < len(name) <= MOST_NAME or len(name.encode("utf-8", "replace")) > MOST_NAME:
        return f"a channel's name has 1 to {MOST_NAME} bytes of UTF-8"
    if CONTROL_CHARACTER(name) is not None or not is_text(name):
        return "a channel's name has no control characters"
    return ""


def is_text(value: str) -> bool:
    """Returns whether UTF-8 can say it: half of a surrogate pair it cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
