"""NATS with JetStream as a backplane."""

import asyncio
import ssl
from collections.abc import Collection, Mapping, Sequence

from ...logs import Position
from ..base import BackplaneError, Beat, Follower, LogName, NodeKey, Observer, Read, Receiver, Subject, UserName
from .address import parse
from .directory import Directory
from .jetstream import JetStream
from .link import Link
from .logs import Logs
from .names import Names

__all__ = ["NATS"]


class NATS:
    """A `Backplane` on NATS 2.11.4 or later with JetStream.

    ``url`` is ``nats://user:password@h1:4222,h2:4222`` or ``tls://...``; with ``?replicas=3`` at its end three servers
    keep each stream that is made from then on. ``tls`` is for certificates of one's own.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._address = parse(url, tls)
        self.url = self._address.url
        self._jet = JetStream()
        self._subscribed: dict[Subject, bytes] = {}
        self._is_started = False
        self._routed: list[tuple[Sequence[UserName], bytes]] = []
        self._routing: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the store answers."""
        return self._is_started and self._link.is_up

    @property
    def lost(self) -> int:
        """Messages that were dropped, since the start."""
        return self._link.lost if self._is_started else 0

    async def start(self, node: NodeKey, observer: Observer, *, prefix: str, timeout: float, buffer: int) -> None:
        """Connect, now or later."""
        self._names = Names(prefix)
        self._link = self._jet.link = Link(
            self._address,
            f"fastws {node.id}",
            timeout=timeout,
            buffer=buffer,
            prepare=self._jet.check,
            on_up=lambda: self._on_up(observer),
            on_down=observer.on_disconnected,
        )
        self._logs = Logs(self._jet, self._names, self._address.replicas)
        self._directory = Directory(self._jet, self._names, self._address.replicas, node)
        self._is_started = True
        await self._link.start()

    def _on_up(self, observer: Observer) -> None:
        self._logs.reconnected()
        self._directory.reconnected()
        observer.on_connected()

    async def stop(self) -> None:
        """Send what is still waiting, and disconnect."""
        if not self._is_started:
            return
        if self._routing is not None:
            await asyncio.wait([self._routing], timeout=self._link.timeout)
        await self._link.stop()
        await self._jet.stop()

    def rename(self, node: NodeKey) -> None:
        """The node goes on under its next incarnation."""
        self._directory.rename(node)

    # -- messages

    def send(self, subject: Subject, payload: bytes) -> None:
        """Send to the other nodes that listen."""
        self._link.publish(self._names.subject(subject), payload)

    async def listen(self, receivers: Mapping[Subject, Receiver]) -> None:
        """Have receivers called."""
        self.ignore(receivers.keys())
        for subject, receive in receivers.items():
            self._subscribed[subject] = self._link.receive(self._names.subject(subject), receive)
        await self._link.settle()

    def ignore(self, subjects: Collection[Subject]) -> None:
        """Listen no more."""
        for subject in subjects:
            number = self._subscribed.pop(subject, None)
            if number is not None:
                self._link.unsubscribe(number)

    # -- logs

    def append(
        self, log: LogName, payload: bytes, *, key: str | None = None, is_deletion: bool = False, id: str | None = None
    ) -> asyncio.Future[Position]:
        """Append a record; raises ValueError if it is larger than the server takes."""
        return self._logs.append(log, payload, key, is_deletion, id)

    async def follow(self, followers: Mapping[LogName, Follower]) -> None:
        """Have followers told."""
        self._logs.follow(followers)
        await self._link.settle()
        await self._logs.tops(list(followers))

    def unfollow(self, logs: Collection[LogName]) -> None:
        """Follow no more."""
        self._logs.unfollow(logs)

    async def read(self, log: LogName, since: Position | None, limit: int) -> Read:
        """Returns what came after a position."""
        return await self._logs.read(log, since, limit)

    async def snapshot(self, log: LogName) -> Read:
        """Returns the newest records."""
        return await self._logs.snapshot(log)

    async def tops(self, logs: Sequence[LogName]) -> list[Position]:
        """Returns the ends of logs."""
        return await self._logs.tops(logs)

    async def broken(self, log: LogName, seen: Position) -> Position:
        """Begin a log anew if it has not the record seen."""
        return await self._logs.broken(log, seen)

    async def clear(self, log: LogName) -> Position:
        """Begin a log anew, empty."""
        return await self._logs.clear(log)

    # -- users and nodes

    async def claim(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """This node has these users."""
        return await self._directory.claim(users)

    async def release(self, users: Sequence[UserName], node: NodeKey | None = None) -> list[list[NodeKey]]:
        """A node has these users no more."""
        return await self._directory.release(users, node or self._directory.node)

    async def find(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """Returns which nodes have each user."""
        return await self._directory.find(users)

    async def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns the users of a node."""
        return await self._directory.holdings(node)

    def route(self, users: Sequence[UserName], payload: bytes) -> None:
        """Send once to each other node that has any of the users; those of one turn are looked up together."""
        if not self._link.is_up:
            self._link.lost += 1
            return
        self._routed.append((users, payload))
        if self._routing is None:
            self._routing = asyncio.get_running_loop().create_task(self._route())

    async def _route(self) -> None:
        """Find users and send to their nodes, as long as there is something to send."""
        while self._routed:
            routed, self._routed = self._routed, []
            asked = list(dict.fromkeys(user for users, _ in routed for user in users))
            try:
                nodes = dict(zip(asked, await self._directory.find(asked), strict=True))
            except BackplaneError:
                self._link.lost += len(routed)
                continue
            for users, payload in routed:
                for name in dict.fromkeys(node.id for user in users for node in nodes[user]):
                    if name != self._directory.node.id:
                        self.send(Subject("node", "", name), payload)
        self._routing = None

    async def beat(self, info: bytes) -> Beat:
        """Count this node's beats."""
        return await self._directory.beat(info)

    async def bury(self, node: NodeKey, beats: int) -> list[NodeKey]:
        """Take a node for dead."""
        return await self._directory.bury(node, beats)

    async def buried(self, node: NodeKey) -> None:
        """All of a dead node is released."""
        await self._directory.buried(node)

    async def leave(self) -> None:
        """This node stops."""
        await self._directory.leave()
