"""The shapes of the HTTP API: every body that comes, every answer that goes, each declared once.

They are checked as they are decoded, and OpenAPI is made of them.
"""

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = [
    "Batch",
    "Broadcast",
    "ChannelPage",
    "Close",
    "Command",
    "ConnectionFacts",
    "Connections",
    "ConnectionsByChannel",
    "Detail",
    "Done",
    "Failure",
    "Info",
    "Log",
    "Members",
    "RefusalList",
    "Results",
    "Send",
    "Subscribe",
    "Unsubscribe",
    "UserConnections",
]

MOST_CHANNELS = 1000  # of one broadcast
MOST_COMMANDS = 1000  # of one batch
NAME_BYTES = 255  # of a channel's name, as UTF-8
MOST_KEY = 64  # characters of an idempotency key
MOST_LATEST_KEY = 255  # characters
REASON_BYTES = 123  # of a Close, as UTF-8
BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]*$"

User: TypeAlias = str | int
Users: TypeAlias = Annotated[list[User] | str | int, Meta(description="A user, or a list of users.")]
Ids: TypeAlias = Annotated[list[str] | str, Meta(description="The id of a connection, or a list of ids.")]
ChannelName: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_BYTES,
        description="1 to 255 bytes of UTF-8, no control characters.",
        extra_json_schema={"pattern": NO_CONTROLS},
    ),
]
Message: TypeAlias = Annotated[msgspec.Raw, Meta(description="Any JSON value.")]
Text: TypeAlias = Annotated[str, Meta(description="A text as it is.")]
Binary: TypeAlias = Annotated[bytes, Meta(description="Binary, in base64.", extra_json_schema={"pattern": BASE64})]
Compress: TypeAlias = Annotated[bool | None, Meta(description="Whether to compress it; by its size if null.")]
IdempotencyKey: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MOST_KEY,
        description="Again within 5 minutes, and in the same channel, it sends nothing and is answered alike.",
    ),
]
LatestKey: TypeAlias = Annotated[
    str,
    Meta(min_length=1, max_length=MOST_LATEST_KEY, description="In a channel of latest messages: the one it replaces."),
]
Position: TypeAlias = Annotated[str, Meta(description="Where a message stands in the channel's log.")]
EndpointPath: TypeAlias = Annotated[str, Meta(description="The path template of the only endpoint that is meant.")]
CloseCode: TypeAlias = Annotated[
    int,
    Meta(
        ge=1000,
        le=4999,
        description="1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455 7.4).",
        extra_json_schema={"not": {"anyOf": [{"enum": [1004, 1005, 1006]}, {"minimum": 1015, "maximum": 2999}]}},
    ),
]
Reason: TypeAlias = Annotated[str, Meta(max_length=REASON_BYTES, description="At most 123 bytes of UTF-8.")]


class Shape(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comes in: no field that is not known."""


class Addressed(Shape, frozen=True, kw_only=True):
    """Users, or connections by id, or both."""

    users: Users | UnsetType = UNSET
    to: Ids | UnsetType = UNSET


class Said(Shape, frozen=True, kw_only=True):
    """A message, in one of three ways, and how it goes out."""

    message: Message | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    base64: Binary | UnsetType = UNSET
    compress: Compress | UnsetType = UNSET


class Broadcast(Said, frozen=True, kw_only=True):
    """Send a message to the members of one channel or of several."""

    channel: ChannelName | UnsetType = UNSET
    channels: Annotated[list[ChannelName], Meta(min_length=1, max_length=MOST_CHANNELS)] | UnsetType = UNSET
    users: Users | UnsetType = UNSET
    to: Ids | UnsetType = UNSET
    exclude: Ids | UnsetType = UNSET
    key: IdempotencyKey | UnsetType = UNSET
    latest_key: LatestKey | UnsetType = UNSET
    endpoint: EndpointPath | UnsetType = UNSET


class Send(Said, frozen=True, kw_only=True):
    """Send a message to users or connections, wherever they are."""

    users: Users | UnsetType = UNSET
    to: Ids | UnsetType = UNSET
    exclude: Ids | UnsetType = UNSET
    key: IdempotencyKey | UnsetType = UNSET


class Subscribe(Addressed, frozen=True, kw_only=True):
    """Have the connections of users, or single ones, join a channel."""

    channel: ChannelName


class Unsubscribe(Addressed, frozen=True, kw_only=True):
    """Have the connections of users, or single ones, leave a channel."""

    channel: ChannelName


class Close(Addressed, frozen=True, kw_only=True):
    """Close the connections of users, of an HTTP session, of a channel, or single ones."""

    session: str | UnsetType = UNSET
    channel: ChannelName | UnsetType = UNSET
    code: CloseCode = 4001
    reason: Reason = ""


class Command(Shape, frozen=True, kw_only=True):
    """One command of a batch: exactly one of these."""

    broadcast: Broadcast | UnsetType = UNSET
    send: Send | UnsetType = UNSET
    subscribe: Subscribe | UnsetType = UNSET
    unsubscribe: Unsubscribe | UnsetType = UNSET
    close: Close | UnsetType = UNSET


class Batch(Shape, frozen=True, kw_only=True):
    """Several commands, which are carried out in order."""

    commands: Annotated[list[Command], Meta(max_length=MOST_COMMANDS)]


# -- answers


class Connections(Struct, frozen=True):
    """How many connections were addressed, and where the message stands in the channel's log if that has one."""

    connections: int
    position: Position | UnsetType = UNSET


class ConnectionsByChannel(Struct, frozen=True):
    """How many connections were addressed in each channel, and the positions in those that have a log."""

    connections: dict[str, int]
    positions: dict[str, Position] | UnsetType = UNSET


class LogEntry(Struct, frozen=True):
    """A message of a log. ``key`` is there in a channel of latest messages, ``deleted`` if that key was deleted."""

    position: Position
    message: Any | UnsetType = UNSET
    base64: Binary | UnsetType = UNSET
    key: str | UnsetType = UNSET
    deleted: bool | UnsetType = UNSET


class Log(Struct, frozen=True):
    """What a channel keeps: entries in order, and the log's end.

    Where something is missing before them, ``recovered`` is false and ``reason`` says why: "trimmed", "unknown" or
    "too_many".
    """

    name: str
    entries: list[LogEntry]
    position: Position
    recovered: bool
    reason: str | None


class Done(Struct, frozen=True):
    """It is done; the log's end after that."""

    position: Position


class Detail(Struct, frozen=True, omit_defaults=True):
    """Why a request was refused. The log has the same id; ``field`` is where in the request the fault is."""

    code: int
    message: str
    request_id: str
    field: str | None = None


class Failure(Struct, frozen=True):
    """An answer that says why not."""

    error: Detail


class Results(Struct, frozen=True):
    """What became of each command of a batch, in order."""

    results: list[Connections | Any]


class ChannelEntry(Struct, frozen=True):
    """A channel: how many connections are in it, and how many users those are."""

    name: str
    subscribers: int
    users: int


class ChannelPage(Struct, frozen=True):
    """Channels in the order of their names. ``next`` is to be asked ``after``; null: there are no more."""

    channels: list[ChannelEntry]
    next: str | None


class Member(Struct, frozen=True):
    """A user in a channel: since when, as Unix time in seconds, and with how many connections.

    0 connections: he or she has been gone for less than ``offline_after`` seconds.
    """

    user: User
    since: float
    devices: int


class Members(Struct, frozen=True):
    """Who is in a channel. ``users`` ends after ``limit`` of them, the others are ``more``."""

    name: str
    subscribers: int
    users: list[Member]
    more: int


class ConnectionFacts(Struct, frozen=True):
    """A connection: its id, its user (or null), the endpoint and the path that it came to, its channels.

    ``since`` is when it came, as Unix time in seconds, and ``pending`` how many bytes wait to be sent to it.
    """

    id: str
    user: User | None
    endpoint: str
    path: str
    remote_address: str
    channels: list[str]
    since: float | None = None
    pending: int | None = None


class UserConnections(Struct, frozen=True):
    """A user's connections."""

    user: User
    connections: list[ConnectionFacts]


class RefusalEntry(Struct, frozen=True):
    """A refused request; ``time`` is Unix time in seconds."""

    time: float
    request_id: str
    status: int
    message: str
    remote_address: str | None
    path: str | None
    origin: str | None
    user_agent: str | None


class RefusalList(Struct, frozen=True):
    """The last refusals, the latest first."""

    refusals: list[RefusalEntry]


class EndpointInfo(Struct, frozen=True):
    """An endpoint, and what is on it now."""

    path: str
    connections: int
    channels: int
    users: int


class Info(Struct, frozen=True):
    """The server: its version, since when it runs (Unix time in seconds), and what is on it now."""

    version: str
    started: float | None
    is_ready: bool
    connections: int
    endpoints: list[EndpointInfo]
