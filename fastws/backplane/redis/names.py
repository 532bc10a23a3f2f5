"""Names of keys and channels. Everything is in one of 128 partitions, each of which is a hash tag of Redis Cluster."""

from binascii import crc32, crc_hqx
from functools import lru_cache
from typing import NamedTuple

from ...errors import ConfigurationError
from ..base import LogName, NodeKey, Subject, UserName

__all__ = ["PARTITIONS", "SLOTS", "LogKeys", "Names", "UserKeys", "slot_of"]

PARTITIONS = 128
SLOTS = 16384
REMEMBERED = 24 * 3600.0  # seconds that the end of a log is known at least after its last record


class LogKeys(NamedTuple):
    """The keys of a log, and the channel on which its records are published."""

    partition: int
    keys: tuple[bytes, bytes, bytes, bytes]
    channel: bytes
    ttl: int  # ms
    meta_ttl: int


class UserKeys(NamedTuple):
    """The key of a user's nodes, and what stands for the user in the holdings of a node."""

    partition: int
    key: bytes
    name: bytes


@lru_cache(1)
def _tags() -> list[str]:
    """Returns a hash tag for each partition: the p-th one's slot is in the p-th 128th of the slots."""
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < PARTITIONS:
        tag = f"{number:x}"
        tags.setdefault(crc_hqx(tag.encode(), 0) % SLOTS * PARTITIONS // SLOTS, tag)
        number += 1
    return [tags[partition] for partition in range(PARTITIONS)]


def slot_of(partition: int) -> int:
    """Returns the slot of a partition's keys."""
    return crc_hqx(_tags()[partition].encode(), 0) % SLOTS


class Names:
    """All names of one server (in the sense of nodes with one prefix).

    Channels are shared by all databases of a Redis, so the number of the database is in their names.
    """

    def __init__(self, prefix: str, database: int) -> None:
        if "{" in prefix or "}" in prefix:
            raise ConfigurationError(
                f"prefix={prefix!r} must not contain braces, which mean something to Redis Cluster"
            )
        self._key = [f"{prefix}:{{{tag}}}:".encode() for tag in _tags()]
        before = f"{prefix}@{database}" if database else prefix
        self._channel = [f"{before}:{{{tag}}}:".encode() for tag in _tags()]
        self.log = lru_cache(16384)(self._log)
        self.user = lru_cache(16384)(self._user)
        self.channels = lru_cache(16384)(self._channels)

    def key(self, partition: int, kind: bytes) -> bytes:
        """Returns a key that there is once in a partition."""
        return self._key[partition] + kind

    def probe(self, partition: int, token: str) -> bytes:
        """Returns the channel on which a connection hears from itself."""
        return self._channel[partition] + b"p:" + token.encode()

    def holdings(self, partition: int, node: NodeKey) -> bytes:
        """Returns the key of the users that a node has."""
        return self._key[partition] + b"i:" + str(node).encode()

    def inbox(self, partition: int) -> bytes:
        """Returns what the channels of nodes begin with; their ids follow."""
        return self._channel[partition] + b"n:"

    def _log(self, log: LogName) -> LogKeys:
        place = _place(log.endpoint, log.name)
        partition = _partition(b"l", place)
        keys = tuple(self._key[partition] + kind + place for kind in (b"m:", b"h:", b"v:", b"d:"))
        ttl = log.keep.ttl
        meta_ttl = round(1000 * max(REMEMBERED, 2 * ttl))
        return LogKeys(partition, keys, self._channel[partition] + b"l:" + place, round(1000 * ttl), meta_ttl)  # type: ignore[arg-type]

    def _user(self, user: UserName) -> UserKeys:
        place = _place(user.endpoint, user.name)
        partition = _partition(b"u", place)
        return UserKeys(partition, self._key[partition] + b"u:" + place, place)

    def _channels(self, subject: Subject) -> list[tuple[int, bytes]]:
        """Returns the channels of a subject, with their partitions; the first is the one to send to.

        A node has an inbox in each partition, because scripts publish only in that of their keys.
        """
        if subject.kind == "all":
            return [(0, self._channel[0] + b"all")]
        if subject.kind == "node":
            name = b"n:" + _bytes(subject.name)
            first = _partition(b"n", name)
            order = [first, *(partition for partition in range(PARTITIONS) if partition != first)]
            return [(partition, self._channel[partition] + name) for partition in order]
        place = _place(subject.endpoint, subject.name)
        partition = _partition(b"c", place)
        return [(partition, self._channel[partition] + b"c:" + place)]


def user_of(name: bytes) -> UserName:
    """Returns the user that stands in the holdings of a node under this name."""
    endpoint, _, user = name.decode("utf-8", "surrogatepass").partition(":")
    return UserName(endpoint.replace("%3A", ":").replace("%25", "%"), user)


def _place(endpoint: str, name: str) -> bytes:
    """Returns the end of a key; no two endpoints and names have the same."""
    return _bytes(endpoint.replace("%", "%25").replace(":", "%3A")) + b":" + _bytes(name)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _partition(kind: bytes, place: bytes) -> int:
    return crc32(kind + place) % PARTITIONS
