"""What nodes write of who is in their channels."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

from ..backplane.base import LogName, NodeKey, Record
from ..logs import Latest
from ..presence import Stay
from .names import user_named

__all__ = ["Said", "is_same", "is_there", "log_of", "of_last_lives", "said_in"]

KEEP = Latest(ttl=1800)
SAME_SECONDS = 0.1


class Said(NamedTuple):
    """What a node has written of a user."""

    user: str | int
    node: NodeKey
    stay: Stay | None


def log_of(endpoint: str, channel: str) -> LogName:
    """Returns the log of who is in a channel."""
    return LogName(endpoint, f"$p:{channel}", KEEP)


def said_in(records: Iterable[Record]) -> Iterator[Said]:
    """Yields what records of such a log say."""
    for record in records:
        name, _, node = str(record.key).rpartition(" ")
        since, devices = (0.0, 0) if record.payload is None else orjson.loads(record.payload)
        yield Said(user_named(name), NodeKey.parse(node), None if record.payload is None else (since, devices))


def is_there(stay: Stay | None) -> bool:
    """Returns whether somebody has connections, and is not only expected back."""
    return stay is not None and stay[1] > 0


def is_same(stay: Stay | None, other: Stay | None) -> bool:
    """Returns whether two stays are the same; a time may come out a little different when it is looked up again."""
    if stay is None or other is None:
        return stay is other
    return stay[1] == other[1] and abs(stay[0] - other[0]) < SAME_SECONDS


def of_last_lives(said: dict[NodeKey, Stay]) -> dict[NodeKey, Stay]:
    """Returns what nodes have said, of each that in its last life alone."""
    last: dict[str, int] = {}
    for node in said:
        last[node.id] = max(last.get(node.id, 0), node.incarnation)
    return {node: stay for node, stay in said.items() if last[node.id] == node.incarnation}
