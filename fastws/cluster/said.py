"""What nodes write of who is in their channels."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

from ..backplane.base import LogName, NodeKey, Record
from ..logs import Latest
from ..presence import Stay
from .names import user_named

__all__ = ["Said", "log_of", "said_in"]

KEEP = Latest(ttl=1800)


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
