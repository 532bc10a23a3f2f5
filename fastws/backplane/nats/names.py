"""What things are called in NATS: subjects, streams and headers."""

import hashlib
import re
from typing import Any

from ...logs import History, Keep
from ..base import LogName, NodeKey, Subject, UserName

__all__ = ["Names", "header", "token"]

DAY = 24 * 3600.0
LONGEST = 160  # bytes of a name as it is; servers take lines of 4,096
WINDOW = 120.0  # seconds that an id is known
KINDS = ("log", "value", "life")
HISTORIES = 4  # of a user on a node: others may ask how it was a moment ago
_other = re.compile(rb"[^A-Za-z0-9_-]")


def token(name: str) -> str:
    """Returns a name as one part of a subject. Long ones are hashed: whoever needs them finds them in the message."""
    raw = name.encode()
    if len(raw) > LONGEST:
        return "=~" + hashlib.sha256(raw).hexdigest()
    return _other.sub(lambda found: b"=%02X" % found[0][0], raw).decode() or "="


def header(headers: bytes, name: bytes) -> bytes:
    """Returns the value of a header; b"" if it is not there."""
    start = headers.find(b"\r\n" + name + b": ")
    if start < 0:
        return b""
    start += len(name) + 4
    return headers[start : headers.find(b"\r\n", start)]


class Names:
    """The names of all that has one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = token(prefix)
        self.directory = f"{self._prefix}-directory"

    # -- messages

    def subject(self, subject: Subject) -> str:
        """Returns where messages go."""
        return f"{self._prefix}.{subject.kind}.{token(subject.endpoint)}.{token(subject.name)}"

    # -- logs: the records, how they are told, the values of keys, and where the life of a log began

    def stream(self, log: LogName) -> str:
        """Returns the stream that a log is in."""
        return f"{self._prefix}-{_kept(log.keep)}"

    def records(self, log: LogName) -> str:
        """Returns the subject of a log's records."""
        return f"{self._prefix}.log.{self._place(log)}"

    def told(self, log: LogName) -> str:
        """Returns the subject on which the server publishes records that it has stored."""
        return f"{self._prefix}.told.{self._place(log)}"

    def values(self, log: LogName, key: str | None) -> str:
        """Returns the subject of a key's value; with None that of all keys."""
        return f"{self._prefix}.value.{self._place(log)}.{'>' if key is None else token(key)}"

    def life(self, log: LogName) -> str:
        """Returns the subject of the position where a log began anew."""
        return f"{self._prefix}.life.{self._place(log)}"

    def id(self, log: LogName, id: str) -> str:
        """Returns the id of a record, as one among all of its stream."""
        return f"{token(log.endpoint)}.{token(log.name)}.{token(id)}"

    def filler(self, log: LogName) -> str:
        """Returns a subject of a log's stream that nobody reads."""
        return self._filler(_kept(log.keep))

    def _place(self, log: LogName) -> str:
        return f"{_kept(log.keep)}.{token(log.endpoint)}.{token(log.name)}"

    def config(self, keep: Keep, replicas: int, first: int) -> dict[str, Any]:
        """Returns how a stream of logs is made."""
        kept = _kept(keep)
        age = 2 * keep.ttl + (DAY if isinstance(keep, History) else 30 * DAY)
        return {
            "name": f"{self._prefix}-{kept}",
            "subjects": [*(f"{self._prefix}.{kind}.{kept}.>" for kind in KINDS), self._filler(kept)],
            "max_msgs_per_subject": keep.size + 1 if isinstance(keep, History) else -1,
            "max_age": int(age * 1e9),
            "duplicate_window": int(WINDOW * 1e9),
            "republish": {"src": f"{self._prefix}.log.{kept}.>", "dest": f"{self._prefix}.told.{kept}.>"},
            "first_seq": first,
            **_common(replicas),
        }

    def _filler(self, kept: str) -> str:
        return f"{self._prefix}.life.{kept}"

    # -- the directory

    def user(self, node: NodeKey | None, user: UserName) -> str:
        """Returns the subject of a user on a node; with None on all nodes."""
        place = "*" if node is None else token(str(node))
        return f"{self._prefix}.user.{place}.{token(user.endpoint)}.{token(user.name)}"

    def users(self, node: NodeKey) -> str:
        """Returns the subjects of all users of a node."""
        return f"{self._prefix}.user.{token(str(node))}.>"

    def node(self, node: NodeKey | None) -> str:
        """Returns the subject of a node's beats; with None those of all nodes."""
        return f"{self._prefix}.beat.{'*' if node is None else token(str(node))}"

    def directory_config(self, replicas: int, first: int) -> dict[str, Any]:
        """Returns how the stream of the directory is made."""
        return {
            "name": self.directory,
            "subjects": [f"{self._prefix}.user.>", f"{self._prefix}.beat.>"],
            "max_msgs_per_subject": HISTORIES,
            "duplicate_window": int(WINDOW * 1e9),
            "first_seq": first,
            **_common(replicas),
        }


def _common(replicas: int) -> dict[str, Any]:
    return {
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
    }


def _kept(keep: Keep) -> str:
    """Returns what tells apart the streams of logs that keep different things."""
    kind = "history" if isinstance(keep, History) else "latest"
    return f"{kind}-{keep.size}-{token(f'{keep.ttl:g}')}"
