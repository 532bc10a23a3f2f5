"""Redis or Valkey as a backplane."""

import asyncio
import contextlib
import logging
import secrets
import ssl as tls
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ...logs import Position
from ..base import (
    BackplaneError,
    Beat,
    Follower,
    LogName,
    NodeKey,
    NodeState,
    Observer,
    Read,
    Receiver,
    Subject,
    UserName,
)
from .addresses import Place, place_of
from .caller import Caller
from .directory import Directory
from .link import Refused, pack
from .logs import MOST_PAYLOAD, Logs, receiver_of
from .names import Names
from .scripts import all_scripts
from .server import Server, Setup
from .topology import Cluster, Fixed, Sentinel, Topology

__all__ = ["Redis"]

logger = logging.getLogger("fastws.backplane")


class Redis:
    """A `Backplane` on Redis 7.0 or later, or Valkey.

    ``url`` is ``redis://user:password@host:6379/0``, ``rediss://`` for TLS, ``unix:///path``,
    ``sentinel://host,host/name`` or ``redis+cluster://host,host``. With several URLs of servers that know nothing of
    each other, each has its share of the names. ``ssl`` is a context for TLS, in place of the system's authorities.
    """

    def __init__(self, url: str, *more: str, ssl: tls.SSLContext | None = None) -> None:
        self._place: Place = place_of([url, *more], ssl)
        self.url = self._place.url
        self.lost = 0
        self._node = NodeKey("", 0)
        self._beats = 0  # of this node, that it knows of
        self._is_connected = False
        self._was_away = False
        self._is_started = False
        self._reconciling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_connected(self) -> bool:
        """Whether Redis answers."""
        return self._is_connected

    async def start(self, node: NodeKey, observer: Observer, *, prefix: str, timeout: float, buffer: int) -> None:
        """Connect. Returns after the first try where Redis is away, which is tried again."""
        self._node, self._observer, self._buffer, self._timeout = node, observer, buffer, timeout
        credentials = self._place.credentials
        self._names = names = Names(prefix, credentials.database)
        token = secrets.token_hex(8)
        self._setup = Setup(
            names,
            credentials,
            timeout,
            token,
            self._place.kind == "cluster",
            self._on_up,
            self._on_down,
            self._on_moved,
            self._on_refused,
        )
        self._topology = self._make_topology()
        self._caller = Caller(self._topology, self._setup)
        self._logs = Logs(self._caller, names, token, timeout, buffer)
        self._directory = Directory(self._caller, names, node, timeout)
        self._channel = lru_cache(16384)(self._packed_channel)
        self._is_started = True
        try:
            await self._topology.start()
        except BaseException:
            await self._topology.stop()
            raise
        if self._reconciling is not None:
            await asyncio.wait({self._reconciling})  # so that it is connected when this returns

    async def stop(self) -> None:
        """Send what is waiting, for at most ``timeout`` seconds, and disconnect."""
        if not self._is_started:
            return
        try:
            async with asyncio.timeout(self._timeout if self._is_connected else 0):
                await asyncio.gather(self._logs.idle(), self._directory.idle())
                await asyncio.gather(*[server.drain() for server in self._topology.servers])
        except TimeoutError:
            pass
        stopped = BackplaneError("the backplane was stopped")
        self._logs.close(stopped)
        self._directory.close(stopped)
        self._is_connected = False
        for task in (*self._tasks, *([self._reconciling] if self._reconciling else [])):
            task.cancel()
        await self._topology.stop()

    def rename(self, node: NodeKey) -> None:
        """The node goes on under its next incarnation."""
        old, self._node, self._beats = self._node, node, 0
        self._directory.rename(node)
        self._spawn(self._directory.release_all(old))

    # -- messages

    def send(self, subject: Subject, payload: bytes) -> None:
        """Send to whoever listens. Dropped and counted where Redis is away, or does not take it."""
        partition, head = self._channel(subject)
        self._send(partition, b"%b%d\r\n%b\r\n" % (head, len(payload), payload))

    async def listen(self, receivers: Mapping[Subject, Receiver]) -> None:
        """Have receivers called; whatever is sent after this returns comes."""
        channels = {}
        for subject, receive in receivers.items():
            for partition, channel in self._names.channels(subject):
                channels[channel] = partition, receive
        await self._subscribe(channels)

    def ignore(self, subjects: Collection[Subject]) -> None:
        """Listen no more."""
        for subject in subjects:
            for partition, channel in self._names.channels(subject):
                self._unsubscribe(partition, channel)

    # -- logs

    def append(
        self, log: LogName, payload: bytes, *, key: str | None = None, is_deletion: bool = False, id: str | None = None
    ) -> asyncio.Future[Position]:
        """Append a record; done when Redis has it."""
        return self._logs.append(log, payload, key, is_deletion, id)

    async def follow(self, followers: Mapping[LogName, Follower]) -> None:
        """Have followers told."""
        channels = {}
        for log, follower in followers.items():
            keys = self._names.log(log)
            channels[keys.channel] = keys.partition, receiver_of(log, follower)
        await self._subscribe(channels)

    def unfollow(self, logs: Collection[LogName]) -> None:
        """Follow no more."""
        for log in logs:
            keys = self._names.log(log)
            self._unsubscribe(keys.partition, keys.channel)

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
        return await self._logs.begin(log, "unknown", seen)

    async def clear(self, log: LogName) -> Position:
        """Begin a log anew, empty."""
        return await self._logs.begin(log, "cleared", None)

    # -- users

    async def claim(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """This node has these users."""
        return await self._directory.claim(users)

    async def release(self, users: Sequence[UserName], node: NodeKey | None = None) -> list[list[NodeKey]]:
        """A node has these users no more."""
        return await self._directory.release(users, node)

    async def find(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """Returns which nodes have each user."""
        return await self._directory.find(users)

    async def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns the users of a node."""
        return await self._directory.holdings(node)

    def route(self, users: Sequence[UserName], payload: bytes) -> None:
        """Send once to each other node that has any of the users."""
        command = self._directory.route(users, payload)
        if command is not None:
            self._send(*command)
        elif users:
            self._spawn(self._find_and_send(users, payload))

    async def _find_and_send(self, users: Sequence[UserName], payload: bytes) -> None:
        try:
            found = await self.find(users)
        except BackplaneError:
            self.lost += 1
            raise
        for name in dict.fromkeys(node.id for nodes in found for node in nodes):
            if name != self._node.id:
                self.send(Subject("node", "", name), payload)

    # -- nodes

    async def beat(self, info: bytes) -> Beat:
        """Count this node's beats."""
        names, node = self._names, self._node
        beats, counts, infos = await self._caller.run(
            0, "beat", [names.key(0, b"nodes"), names.key(0, b"info")], [str(node), info, self._beats]
        )
        if node == self._node:
            self._beats = max(self._beats, beats)
        said = dict(zip(infos[::2], infos[1::2], strict=True))
        nodes = {
            NodeKey.parse(name.decode()): NodeState(int(count), said.get(name, b""))
            for name, count in zip(counts[::2], counts[1::2], strict=True)
        }
        return Beat(nodes, beats > 1)

    async def bury(self, node: NodeKey, beats: int) -> list[NodeKey]:
        """Take a node for dead."""
        keys = [self._names.key(0, kind) for kind in (b"nodes", b"info", b"dead")]
        args = [str(node), beats, str(self._node)]
        jobs = await self._caller.run(0, "bury", keys, args, tells_again=True)
        return [NodeKey.parse(job.decode()) for job in jobs]

    async def buried(self, node: NodeKey) -> None:
        """All of a dead node is released."""
        await self._directory.forget(node)
        await self._caller.command(0, "HDEL", self._names.key(0, b"dead"), str(node))

    async def leave(self) -> None:
        """This node stops."""
        for kind in (b"nodes", b"info"):
            await self._caller.command(0, "HDEL", self._names.key(0, kind), str(self._node))
        await self._directory.forget(self._node)

    # -- subscriptions

    async def _subscribe(self, channels: dict[bytes, tuple[int, Receiver]]) -> None:
        for channel, (partition, receive) in channels.items():
            self._setup.receivers[channel] = receive
            self._setup.wanted[partition][channel] = None
            server = self._topology.of(partition)
            if server is not None:
                server.subscribe(partition, channel, True)
        try:
            async with asyncio.timeout(self._timeout):
                for lane in sorted({self._topology.lane(partition) for partition, _ in channels.values()}):
                    await self._settle(lane)
        except TimeoutError:
            raise BackplaneError(f"Redis has not answered for {self._timeout:g} s") from None

    async def _settle(self, partition: int) -> None:
        while True:
            server = await self._caller.server(partition)
            try:
                await server.settle()
            except BackplaneError:
                continue
            if self._topology.of(partition) is server:
                return

    def _unsubscribe(self, partition: int, channel: bytes) -> None:
        self._setup.receivers.pop(channel, None)
        if self._setup.wanted[partition].pop(channel, 0) is None:
            server = self._topology.of(partition)
            if server is not None:
                server.subscribe(partition, channel, False)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for."""
        task = asyncio.create_task(_unless_away(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what the parts of this say

    def _make_topology(self) -> Topology:
        place = self._place
        if place.kind == "cluster":
            return Cluster(self._setup, place.addresses)
        if place.kind == "sentinel":
            return Sentinel(self._setup, place.addresses, place.name)
        return Fixed(self._setup, place.addresses)

    def _send(self, partition: int, packed: bytes) -> None:
        server = self._topology.of(partition)
        if server is None or not server.is_up or server.commands.backlog + len(packed) > self._buffer:
            self.lost += 1
        elif len(packed) > MOST_PAYLOAD:
            self.lost += 1
            logger.error("A message of %d bytes is too large for Redis: %d at most", len(packed), MOST_PAYLOAD)
        else:
            server.commands.tell(packed)

    def _packed_channel(self, subject: Subject) -> tuple[int, bytes]:
        """Returns the partition of a subject, and the command that sends to it up to the length of the payload."""
        partition, channel = self._names.channels(subject)[0]
        return partition, b"*3\r\n$8\r\nSPUBLISH\r\n$%d\r\n%b\r\n$" % (len(channel), channel)

    def _on_up(self, server: Server) -> None:
        if self._topology.is_up:
            if self._reconciling is not None:
                self._reconciling.cancel()
            self._reconciling = asyncio.create_task(self._reconcile())

    async def _reconcile(self) -> None:
        """Have the directory right before anybody asks; then say that all is there."""
        while True:
            try:
                await self._directory.reconcile()
                break
            except BackplaneError as error:
                logger.warning("Redis at %s does not take back the users of this node: %s", self.url, error)
                await asyncio.sleep(1)
        if not self._topology.is_up:
            return  # this is begun again when it is
        self._is_connected = True
        if self._was_away:
            self._was_away = False
            logger.warning("Redis at %s is back", self.url)
        self._observer.on_connected()

    def _on_down(self, reason: str) -> None:
        self._topology.look()
        if not self._was_away:
            self._was_away = True
            logger.warning("Redis at %s is away, and is tried again: %s", self.url, reason)
        if self._is_connected:
            self._is_connected = False
            self._observer.on_disconnected(reason)

    def _on_moved(self) -> None:
        self._topology.look()

    def _on_refused(self, server: Server, error: Refused) -> None:
        """Redis has not taken a message."""
        self.lost += 1
        if error.code == "NOSCRIPT":
            for script in all_scripts():
                server.commands.tell(pack("SCRIPT", "LOAD", script.text))
        elif error.code in ("MOVED", "CLUSTERDOWN"):
            self._topology.look()
        elif error.code in ("READONLY", "MASTERDOWN", "LOADING"):
            server.drop(str(error))


async def _unless_away(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(BackplaneError):
        await work
