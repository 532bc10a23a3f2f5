"""One Redis server as a node uses it: two connections, for commands and for pushes, made again when they break."""

import asyncio
import contextlib
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ...errors import ConfigurationError
from .._push import PushParser
from ..base import BackplaneError
from .link import Address, Away, Credentials, Link, Refused, connect, pack
from .names import PARTITIONS, Names
from .scripts import all_scripts

__all__ = ["Server", "Setup"]

logger = logging.getLogger("fastws.backplane")

LEAST_WAIT, MOST_WAIT = 0.05, 2.0  # seconds before it is tried again
BATCH = 512  # channels in one command
MOST_UNANSWERED = 4  # probes


@dataclass
class Setup:
    """What all servers of a backplane share."""

    names: Names
    credentials: Credentials
    timeout: float
    token: str
    is_cluster: bool
    on_up: Callable[["Server"], None]
    on_down: Callable[[str], None]
    on_moved: Callable[[], None]
    on_refused: Callable[["Server", Refused], None]
    receivers: dict[bytes, Callable[[bytes], object]] = field(default_factory=dict)
    wanted: list[dict[bytes, None]] = field(default_factory=lambda: [{} for _ in range(PARTITIONS)])  # channels
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # another one after each change

    def tell_changed(self) -> None:
        """Wake whoever waits for a server."""
        self.changed.set()
        self.changed = asyncio.Event()


class Server:
    """A server and the partitions that are on it. It is up while both connections are, and all is subscribed."""

    def __init__(self, setup: Setup, find: Callable[[], Awaitable[Address]], partitions: Iterable[int]) -> None:
        self.partitions = set(partitions)
        self.tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.commands = self._pushes = Link()
        self._setup, self._find = setup, find
        self._changes: dict[bytes, tuple[int, bool]] = {}  # of subscriptions, in this turn of the loop
        self._settling: asyncio.Future[None] | None = None
        self._fences: deque[asyncio.Future[None]] = deque()
        self._leaving: dict[bytes, int] = {}
        self._unanswered = 0
        self._is_checked = self._is_ready = False
        self._task = asyncio.create_task(self._live())

    @property
    def is_up(self) -> bool:
        """Whether it can be asked."""
        return self._is_ready and self.commands.is_open and self._pushes.is_open

    def drop(self, reason: str) -> None:
        """Give the connections up; others are made."""
        self.commands.close(reason)

    async def drain(self) -> None:
        """Wait until the server has taken all that was said."""
        if self.is_up:
            with contextlib.suppress(BackplaneError):
                await self.commands.ask("PING")

    async def stop(self) -> None:
        """Close at once, and wait until nothing is left of it."""
        self.close()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(self.commands.gone(), self._pushes.gone())

    def close(self) -> None:
        """Close at once, for good."""
        self._task.cancel()
        self._close("the backplane was stopped")

    # -- subscriptions

    def subscribe(self, partition: int, channel: bytes, is_wanted: bool) -> None:
        """Subscribe to a channel, or no more, at the end of this turn of the loop."""
        if not self.is_up:
            return  # it is said when the connection is there
        if not self._changes and self._settling is None:
            asyncio.get_running_loop().call_soon(self._change)
        self._changes[channel] = partition, is_wanted

    async def settle(self) -> None:
        """Wait until all that was said of subscriptions before is done. Raises Away if the connection is lost."""
        if not self.is_up:
            raise Away("not connected")
        if self._settling is None:
            if not self._changes:
                asyncio.get_running_loop().call_soon(self._change)
            self._settling = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._settling)

    def _change(self) -> None:
        changes, self._changes = self._changes, {}
        for channel, (_, is_wanted) in changes.items():
            if not is_wanted:
                self._leaving[channel] = self._leaving.get(channel, 0) + 1
        for is_wanted, command in ((False, "SUNSUBSCRIBE"), (True, "SSUBSCRIBE")):
            channels = [(part, channel) for channel, (part, is_it) in changes.items() if is_it == is_wanted]
            self._say(command, channels)
        settling, self._settling = self._settling, None
        if settling is not None:
            self._fence(settling)

    def _say(self, command: str, channels: list[tuple[int, bytes]]) -> None:
        """Say a command of many channels; in a cluster one for each partition, which is one slot."""
        for _, group in itertools.groupby(sorted(channels), lambda it: it[0] if self._setup.is_cluster else 0):
            names = [channel for _, channel in group]
            for start in range(0, len(names), BATCH):
                self._pushes.write(pack(command, *names[start : start + BATCH]))

    def _fence(self, done: asyncio.Future[None]) -> None:
        if not self._pushes.is_open:
            done.set_exception(Away("not connected"))
            done.exception()
            return
        self._fences.append(done)
        self._pushes.write(b"*1\r\n$4\r\nPING\r\n")

    def _on_push(self, reply: list[bytes | int | None] | bytes) -> None:
        """Anything but a message: answers, errors, and that a slot has gone elsewhere."""
        if isinstance(reply, bytes):
            if reply.startswith((b"-MOVED", b"-CLUSTERDOWN")):
                self._setup.on_moved()
            if reply.startswith(b"-"):
                self._pushes.close(reply[1:].decode("utf-8", "replace"))
        elif reply[0] == b"pong":
            if self._fences:
                done = self._fences.popleft()
                if not done.done():
                    done.set_result(None)
        elif reply[0] == b"sunsubscribe" and isinstance(reply[1], bytes):
            left = self._leaving.pop(reply[1], 0)
            if left > 1:
                self._leaving[reply[1]] = left - 1
            elif not left:
                self._setup.on_moved()

    # -- connections

    async def _live(self) -> None:
        tries = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._connect_if_allowed()
            except ConfigurationError as error:
                if not self.tried.done():
                    self._close(str(error))
                    self.tried.set_exception(error)
                    return
                reason = str(error)
            except TimeoutError:
                reason = "no answer in time"
            except (OSError, BackplaneError, UnicodeError) as error:
                reason = str(error) or type(error).__name__
            else:
                self._set_up()
                reason = await self._watch()
            self._close(reason)
            self._setup.on_down(reason)
            if not self.tried.done():
                self.tried.set_result(None)
            tries = 0 if loop.time() - began > MOST_WAIT else tries + 1
            await asyncio.sleep(random.uniform(0.5, 1) * min(MOST_WAIT, LEAST_WAIT * 2 ** min(tries, 10)))

    def _set_up(self) -> None:
        self._is_ready = True
        self._setup.tell_changed()
        self._setup.on_up(self)
        if not self.tried.done():
            self.tried.set_result(None)

    def _close(self, reason: str) -> None:
        self._is_ready = False
        for link in (self.commands, self._pushes):
            link.close(reason)
        self._changes.clear()
        self._leaving.clear()
        if self._settling is not None:
            self._fences.append(self._settling)
            self._settling = None
        while self._fences:
            done = self._fences.popleft()
            if not done.done():
                done.set_exception(Away(reason))
                done.exception()

    async def _connect_if_allowed(self) -> None:
        try:
            await self._connect()
        except BackplaneError as error:
            if str(error).startswith("NOPERM"):
                raise ConfigurationError(f"Redis does not let its user do what is needed: {error}") from None
            raise

    async def _connect(self) -> None:
        setup = self._setup
        address = await self._find()
        self.commands, said = await connect(address, setup.credentials, setup.timeout)
        self.commands.on_refused = lambda error: setup.on_refused(self, error)
        async with asyncio.timeout(setup.timeout):
            await self._check(said)
            await asyncio.gather(*[self.commands.ask("SCRIPT", "LOAD", script.text) for script in all_scripts()])
            self._pushes, _ = await connect(address, setup.credentials, setup.timeout)
            self._pushes.hand_over(PushParser(setup.receivers, self._on_push, _failed).feed)
            await self._subscribe_all()

    async def _check(self, said: dict[str, Any]) -> None:
        """Raises ConfigurationError where this server cannot serve, and Away where it is none to write to."""
        version = said.get("version", b"?").decode()
        major = version.partition(".")[0]
        if not major.isdigit() or int(major) < 7:
            raise ConfigurationError(f"Redis {version} is too old: 7.0 or later, or Valkey, is needed")
        if said.get("role", b"master") not in (b"master", b"primary"):
            raise Away(f"it is a {said['role'].decode()}, not the master")
        if said.get("mode") == b"cluster" and not self._setup.is_cluster:
            raise ConfigurationError("Redis is a cluster: its URL begins with redis+cluster://")
        if self._is_checked:
            return
        self._is_checked = True
        try:
            policy = await self.commands.ask("CONFIG", "GET", "maxmemory-policy")
        except Refused as error:
            logger.info("Redis does not say its maxmemory-policy, which should be noeviction: %s", error)
            return
        if policy and policy[1] != b"noeviction":
            logger.warning(
                "Redis has maxmemory-policy %s, and may throw away users and logs: set it to noeviction",
                policy[1].decode(),
            )

    async def _subscribe_all(self) -> None:
        """Subscribe to all that is wanted; afterwards there is nothing that a message could miss."""
        setup, partition = self._setup, min(self.partitions)
        probe = setup.names.probe(partition, setup.token)
        setup.receivers[probe] = self._hear
        self._unanswered = 0
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._say("SSUBSCRIBE", [(partition, probe)])
        self._say("SSUBSCRIBE", [(part, channel) for part in sorted(self.partitions) for channel in setup.wanted[part]])
        self._fence(done)
        await asyncio.wait([done, self._pushes.lost], return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        if not done.done():
            raise Away(self._pushes.lost.result())
        await done

    def _hear(self, payload: bytes) -> None:
        self._unanswered = 0

    async def _watch(self) -> str:
        """Returns why the server is no longer up: a connection was lost, or what is sent does not come back."""
        setup, partition = self._setup, min(self.partitions)
        probe = pack("SPUBLISH", setup.names.probe(partition, setup.token), b"")
        lost = {self.commands.lost, self._pushes.lost}
        while True:
            done, _ = await asyncio.wait(
                lost, timeout=setup.timeout / MOST_UNANSWERED, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return done.pop().result()
            if self._unanswered >= MOST_UNANSWERED:
                return f"it has not answered for {setup.timeout:g} s"
            self._unanswered += 1
            self.commands.tell(probe)


def _failed(channel: bytes, error: Exception) -> None:
    logger.error("A receiver of %r failed", channel, exc_info=error)
