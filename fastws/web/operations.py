"""The operations of the HTTP API: one table, of which the routes and OpenAPI are made."""

from typing import Any, NamedTuple

from ..access.keys import Scope
from . import shapes

__all__ = ["COMMANDS", "LIMIT", "OPERATIONS", "Operation", "Parameter"]

LIMIT = 100, 1000  # entries of a list: by default, at most
MEMBERS_LIMIT = 1000, 10_000


class Parameter(NamedTuple):
    """A field of the query string, or of the path."""

    name: str
    description: str
    kind: str = "string"  # or "boolean", of JSON Schema; "array" of strings: may come several times
    limit: tuple[int, int] | None = None  # of an integer: the default, and the most


class Operation(NamedTuple):
    """One route. ``path`` is relative to the API's own; ``scope`` None needs no key."""

    name: str
    method: str
    path: str
    scope: Scope | None
    summary: str
    answer: Any
    body: Any = None  # a shape, or bytes for any body
    query: tuple[Parameter, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    can_be_missing: bool = False  # answers 404 where there is no such thing


def _name(of: str) -> tuple[Parameter, ...]:
    return (Parameter("name", of),)


def _limit(limit: tuple[int, int]) -> Parameter:
    return Parameter("limit", "how many at most", "integer", limit)


ENDPOINT = Parameter("endpoint", "the path template of the only endpoint that is meant")
LATEST_KEY = Parameter("latest_key", "in a channel of latest messages: the one it replaces")
TARGETS = (
    Parameter("users", "only to these users", "array"),
    Parameter("to", "only to these connections", "array"),
    Parameter("exclude", "not to these connections", "array"),
    ENDPOINT,
    LATEST_KEY,
    Parameter("compress", "whether to compress it; by its size unless given", "boolean"),
)

OPERATIONS = (
    Operation(
        "broadcast",
        "POST",
        "/broadcast",
        "broadcast",
        "Send a message to the members of a channel, or of several",
        shapes.Connections | shapes.ConnectionsByChannel,
        shapes.Broadcast,
    ),
    Operation(
        "publish",
        "POST",
        "/channels/{name}",
        "broadcast",
        "Send a body as it is to the members of a channel",
        shapes.Connections,
        bytes,
        TARGETS,
        _name("the channel"),
    ),
    Operation(
        "send",
        "POST",
        "/send",
        "send",
        "Send a message to users or connections, wherever they are",
        shapes.Connections,
        shapes.Send,
    ),
    Operation(
        "subscribe",
        "POST",
        "/subscribe",
        "subscribe",
        "Have connections join a channel",
        shapes.Connections,
        shapes.Subscribe,
    ),
    Operation(
        "unsubscribe",
        "POST",
        "/unsubscribe",
        "subscribe",
        "Have connections leave a channel",
        shapes.Connections,
        shapes.Unsubscribe,
    ),
    Operation("close", "POST", "/close", "close", "Close connections", shapes.Connections, shapes.Close),
    Operation(
        "batch",
        "POST",
        "/batch",
        None,
        "Several commands, carried out in order",
        shapes.Results,
        shapes.Batch,
    ),
    Operation(
        "channels",
        "GET",
        "/channels",
        "read",
        "Channels, in the order of their names",
        shapes.ChannelPage,
        query=(
            Parameter("prefix", "what the names begin with"),
            Parameter("after", "the name that they come after: the `next` of the page before"),
            _limit(LIMIT),
        ),
    ),
    Operation(
        "channel",
        "GET",
        "/channels/{name}",
        "read",
        "Who is in a channel",
        shapes.Members,
        query=(_limit(MEMBERS_LIMIT),),
        parameters=_name("the channel"),
        can_be_missing=True,
    ),
    Operation(
        "log",
        "GET",
        "/channels/{name}/log",
        "read",
        "What a channel keeps: after a position, or the last messages",
        shapes.Log,
        query=(
            Parameter("since", "the position after which; without it the last ones, or all latest ones"),
            ENDPOINT,
            _limit(LIMIT),
        ),
        parameters=_name("the channel"),
        can_be_missing=True,
    ),
    Operation(
        "clear",
        "DELETE",
        "/channels/{name}/log",
        "broadcast",
        "Have a channel forget what it keeps; members are told",
        shapes.Done,
        query=(ENDPOINT,),
        parameters=_name("the channel"),
        can_be_missing=True,
    ),
    Operation(
        "delete",
        "DELETE",
        "/channels/{name}/log/{key}",
        "broadcast",
        "Remove a key from a channel of latest messages; members are told",
        shapes.Done,
        query=(ENDPOINT,),
        parameters=(*_name("the channel"), Parameter("key", "the key")),
        can_be_missing=True,
    ),
    Operation(
        "user",
        "GET",
        "/users/{name}",
        "read",
        "A user's connections",
        shapes.UserConnections,
        parameters=_name("the user"),
        can_be_missing=True,
    ),
    Operation(
        "connection",
        "GET",
        "/connections/{id}",
        "read",
        "A connection",
        shapes.ConnectionFacts,
        parameters=(Parameter("id", "the connection's id"),),
        can_be_missing=True,
    ),
    Operation(
        "refusals",
        "GET",
        "/refusals",
        "read",
        "The last refusals, the latest first",
        shapes.RefusalList,
        query=(_limit(LIMIT),),
    ),
    Operation("info", "GET", "/info", "read", "The server, and what is on it", shapes.Info),
    Operation("openapi", "GET", "/openapi.json", None, "This description", dict[str, Any]),
)

#: What a batch may hold, each with what its key has to allow.
COMMANDS: dict[str, Scope] = {
    "broadcast": "broadcast",
    "send": "send",
    "subscribe": "subscribe",
    "unsubscribe": "subscribe",
    "close": "close",
}
