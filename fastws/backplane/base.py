"""What a backplane is: the interface between a node and the store that it shares with other nodes.

Nodes with one store and one prefix are one server. A store knows nothing of connections, frames or listeners; whatever
it is given as a payload it gives back byte by byte.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from ..errors import BackplaneError
from ..logs import Keep, Latest, Position

__all__ = [
    "Backplane",
    "BackplaneError",
    "Beat",
    "Follower",
    "LogName",
    "NodeKey",
    "NodeState",
    "Observer",
    "Read",
    "Receiver",
    "Record",
    "Status",
    "Subject",
    "UserName",
]

#: "ok": the records are all that came after the position. "trimmed": some of them are gone. "too_many": more than were
#: asked for. "unknown": the store does not know the position.
Status: TypeAlias = Literal["ok", "trimmed", "too_many", "unknown"]


class Subject(NamedTuple):
    """Where a message goes to: "channel" of an endpoint, "node" by its id (endpoint ""), or "all" nodes (both "")."""

    kind: Literal["channel", "node", "all"]
    endpoint: str
    name: str


class LogName(NamedTuple):
    """A log: ``name`` is that of a channel, or begins with ``$`` for those that nodes keep for themselves."""

    endpoint: str
    name: str
    keep: Keep

    @property
    def has_keys(self) -> bool:
        """Whether of each key only the newest record counts."""
        return isinstance(self.keep, Latest)


class Record(NamedTuple):
    """One entry of a log, as the store has it. ``payload`` None: the key was deleted."""

    position: Position
    key: str | None
    payload: bytes | None


class Read(NamedTuple):
    """What a store says of a log: whether the position asked about is good, the log's end, and records.

    Of a log with keys each key is there once, with its newest record, in the order of their positions.
    """

    status: Status
    top: Position
    records: Sequence[Record]


class UserName(NamedTuple):
    """A user of an endpoint. A name that is an int is written with a ``#`` before it, one that begins with ``#`` or
    ``$`` with a ``$``."""

    endpoint: str
    name: str


class NodeKey(NamedTuple):
    """A node in one of its lives: it gets the next incarnation when the others took it for dead."""

    id: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.id}.{self.incarnation}"

    @classmethod
    def parse(cls, text: str) -> "NodeKey":
        """Returns the key that ``str()`` made the text of."""
        name, _, incarnation = text.rpartition(".")
        return cls(name, int(incarnation))


class NodeState(NamedTuple):
    """How often a node has beaten, and what it said of itself with the last beat."""

    beats: int
    info: bytes


class Beat(NamedTuple):
    """All nodes that the store knows, the one that asked among them."""

    nodes: Mapping[NodeKey, NodeState]
    was_known: bool
    """False: the others took it for dead and buried it, or the store has lost it."""


Receiver: TypeAlias = Callable[[bytes], None]


class Follower(Protocol):
    """Whoever is told of each record of a log."""

    def on_records(self, previous: Position, records: Sequence[Record]) -> None:
        """Records were appended one after the other; ``previous`` is the position just before the first."""

    def on_begun(self, position: Position, reason: str) -> None:
        """The log begins anew, by `Backplane.broken` ("unknown") or `Backplane.clear` ("cleared")."""


class Observer(Protocol):
    """Whoever is told how the connection to the store is."""

    def on_connected(self) -> None:
        """It is there (again), and with it all that was listened to and followed.

        Whatever was sent in the meantime is lost: what is followed has to be reconciled.
        """

    def on_disconnected(self, reason: str) -> None:
        """It is gone; the backplane connects again by itself."""

    def on_gone(self, node: NodeKey) -> None:
        """A node is dead for certain: `bury` it now. Only stores that see nodes end say this, maybe more than once.

        With any other store, and for a node that ends by `Backplane.leave`, one hears nothing.
        """


class Backplane(Protocol):
    """A store, as one node uses it. All is called on the node's loop, and calls back on it, maybe from within a call.

    Whatever waits raises BackplaneError when the store is away for longer than ``timeout`` seconds.
    """

    url: str
    """Where it is, without any password."""

    @property
    def is_connected(self) -> bool:
        """Whether the store answers."""

    async def start(self, node: NodeKey, observer: Observer, *, prefix: str, timeout: float, buffer: int) -> None:
        """Connect. Returns at once where the store is away, which is said in the log and tried again.

        ``prefix`` begins all names in the store. At most ``buffer`` bytes wait for a store that is away.
        Raises ConfigurationError where the store cannot serve (too old, wrong password).
        """

    async def stop(self) -> None:
        """Send what is still waiting, for at most ``timeout`` seconds, and disconnect."""

    def rename(self, node: NodeKey) -> None:
        """The node goes on under its next incarnation."""

    # -- messages: at most once, in order from one sender to one subject

    def send(self, subject: Subject, payload: bytes) -> None:
        """Send to whoever listens. Never waits; whether it comes back to this node itself is not defined.

        Dropped and counted where the store is away.
        """

    async def listen(self, receivers: Mapping[Subject, Receiver]) -> None:
        """Have receivers called with each payload of their subject; whatever is sent after this returns comes."""

    def ignore(self, subjects: Collection[Subject]) -> None:
        """Listen no more."""

    @property
    def lost(self) -> int:
        """Messages that were dropped, since the start."""

    # -- logs

    def append(
        self, log: LogName, payload: bytes, *, key: str | None = None, is_deletion: bool = False, id: str | None = None
    ) -> asyncio.Future[Position]:
        """Append a record; done when the store has it. Records of this node are stored in the order of the calls.

        A second one with the same ``id`` among the last 1,000 records is none: its position is that of the first.
        ``key`` is given if and only if the log has keys; ``is_deletion`` removes the key.
        """

    async def follow(self, followers: Mapping[LogName, Follower]) -> None:
        """Have followers told of each record; of whatever is appended after this returns they are told."""

    def unfollow(self, logs: Collection[LogName]) -> None:
        """Follow no more."""

    async def read(self, log: LogName, since: Position | None, limit: int) -> Read:
        """Returns what came after a position; with None only the end. A log that never was gets a position now."""

    async def snapshot(self, log: LogName) -> Read:
        """Returns the newest records: of each key one, or (without keys) as many as are kept."""

    async def tops(self, logs: Sequence[LogName]) -> list[Position]:
        """Returns the ends of many logs at once."""

    async def broken(self, log: LogName, seen: Position) -> Position:
        """Begin a log anew if the store has not the record that this node has seen. Returns the log's end.

        Followers are told of the new beginning. Offsets go on above the greater of both; values of keys stay.
        """

    async def clear(self, log: LogName) -> Position:
        """Begin a log anew, empty. Followers are told."""

    # -- the directory: on which nodes a user is

    async def claim(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """This node has these users. Returns for each which other nodes have them, too."""

    async def release(self, users: Sequence[UserName], node: NodeKey | None = None) -> list[list[NodeKey]]:
        """This node (or a dead one) has these users no more. Returns which nodes still have each."""

    async def find(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """Returns which nodes have each of the users."""

    async def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns the users that a node has claimed and not released."""

    def route(self, users: Sequence[UserName], payload: bytes) -> None:
        """Send once to each other node that has any of the users; arrives as for its subject "node". Never waits."""

    # -- nodes

    async def beat(self, info: bytes) -> Beat:
        """Count this node's beats up by one. Returns all nodes."""

    async def bury(self, node: NodeKey, beats: int) -> list[NodeKey]:
        """Take a node for dead unless it has beaten since. Returns whose users this node has to release now.

        Of a node that is gone (`Observer.on_gone`) the beats do not matter.
        Exactly one caller gets the dead node; with it whatever the dead one had taken upon itself and not `buried`.
        """

    async def buried(self, node: NodeKey) -> None:
        """All that a dead node had is released."""

    async def leave(self) -> None:
        """This node stops; nobody need bury it."""
