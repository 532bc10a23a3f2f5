"""Which server a partition is on: one server, several, the master that sentinels name, or a cluster."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from ...errors import ConfigurationError
from ..base import BackplaneError
from .link import Address, Away, Credentials, Link, Refused, connect
from .names import PARTITIONS, slot_of
from .server import Server, Setup

__all__ = ["Cluster", "Fixed", "Sentinel", "Topology"]

EVERY = 30.0  # seconds between looks at a cluster's map
SHORTLY = 0.1  # seconds between looks while something is wrong with it


class Topology(Protocol):
    """All servers of a backplane."""

    @property
    def servers(self) -> Sequence[Server]:
        """Returns those that there are."""

    @property
    def is_up(self) -> bool:
        """Whether every partition can be reached."""

    def of(self, partition: int) -> Server | None:
        """Returns the server of a partition, if it is known."""

    def lane(self, partition: int) -> int:
        """Returns the partition that stands for all those which one call may reach together with this."""

    async def start(self) -> None:
        """Connect; returns after the first try. Raises ConfigurationError where a server cannot serve."""

    def look(self) -> None:
        """Something is not where it was: look again soon."""

    async def stop(self) -> None:
        """Close all connections."""


class Fixed:
    """One server, or several of which each has its share of the partitions."""

    def __init__(self, setup: Setup, addresses: Sequence[Address]) -> None:
        self._setup, self._addresses = setup, addresses
        self._shares = [partition * len(addresses) // PARTITIONS for partition in range(PARTITIONS)]
        self._lanes = [self._shares.index(share) for share in self._shares]
        self.servers: list[Server] = []

    @property
    def is_up(self) -> bool:
        """Whether every partition can be reached."""
        return bool(self.servers) and all(server.is_up for server in self.servers)

    def of(self, partition: int) -> Server | None:
        """Returns the server of a partition."""
        return self.servers[self._shares[partition]]

    def lane(self, partition: int) -> int:
        """Returns the first partition on the same server."""
        return self._lanes[partition]

    async def start(self) -> None:
        """Connect to each."""
        for number in range(len(self._addresses)):
            partitions = [partition for partition, share in enumerate(self._shares) if share == number]
            self.servers.append(Server(self._setup, lambda number=number: self.find(number), partitions))  # type: ignore[misc]
        await asyncio.gather(*[server.tried for server in self.servers])

    async def find(self, number: int) -> Address:
        """Returns where a server is now."""
        return self._addresses[number]

    def look(self) -> None:
        """Nothing ever moves."""

    async def stop(self) -> None:
        """Close all connections."""
        await asyncio.gather(*[server.stop() for server in self.servers])


class Sentinel(Fixed):
    """The master that most of the sentinels name; when they name another, that."""

    def __init__(self, setup: Setup, sentinels: Sequence[Address], name: str) -> None:
        super().__init__(setup, sentinels[:1])
        self._sentinels, self._name = sentinels, name
        self._master: Address | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and keep asking."""
        await super().start()
        self._watch = asyncio.create_task(self._keep_asking())

    async def find(self, number: int) -> Address:
        """Returns where the master is."""
        self._master = await self._ask_all()
        return self._master

    async def stop(self) -> None:
        """Close all connections."""
        if self._watch is not None:
            self._watch.cancel()
        await super().stop()

    async def _ask_all(self) -> Address:
        answers = await asyncio.gather(*[self._ask(sentinel) for sentinel in self._sentinels], return_exceptions=True)
        named = Counter(answer for answer in answers if isinstance(answer, Address))
        if not named:
            wrong = [answer for answer in answers if isinstance(answer, ConfigurationError)]
            raise wrong[0] if wrong else Away(f"no sentinel knows a master {self._name}: {answers[0]}")
        return named.most_common(1)[0][0]

    async def _ask(self, sentinel: Address) -> Address:
        timeout, credentials = self._setup.timeout, self._setup.credentials
        try:
            link, _ = await connect(sentinel, Credentials(tls=credentials.tls), timeout)
        except ConfigurationError:  # it wants a password
            same = Credentials(credentials.username, credentials.password, tls=credentials.tls)
            link, _ = await connect(sentinel, same, timeout)
        try:
            async with asyncio.timeout(timeout):
                found = await link.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        finally:
            link.close("asked")
            await link.gone()
        if found is None:
            raise Away(f"{sentinel} has not heard of it")
        return Address(found[0].decode(), int(found[1]))

    async def _keep_asking(self) -> None:
        """A demoted master may take subscriptions, and deliver nothing: the sentinels know."""
        (server,) = self.servers
        while True:
            await asyncio.sleep(self._setup.timeout / 2)
            if server.is_up:
                try:
                    master = await self._ask_all()
                except (OSError, BackplaneError, ConfigurationError):
                    continue
                if master != self._master:
                    server.drop(f"the master is {master} now")


class Cluster:
    """The masters of a cluster, each with the partitions in its slots."""

    def __init__(self, setup: Setup, seeds: Sequence[Address]) -> None:
        self._setup, self._seeds = setup, seeds
        self._servers: dict[Address, Server] = {}
        self._places: list[Server | None] = [None] * PARTITIONS
        self._is_wrong = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def servers(self) -> Sequence[Server]:
        """Returns the masters."""
        return list(self._servers.values())

    @property
    def is_up(self) -> bool:
        """Whether every partition can be reached."""
        return all(server is not None and server.is_up for server in self._places)

    def of(self, partition: int) -> Server | None:
        """Returns the master of a partition's slot."""
        return self._places[partition]

    def lane(self, partition: int) -> int:
        """Returns the partition itself: one call reaches one slot."""
        return partition

    async def start(self) -> None:
        """Read the map, and connect to all masters."""
        try:
            await self._read()
        except (OSError, BackplaneError) as error:
            self._setup.on_down(str(error) or "no answer in time")
            self.look()
        self._task = asyncio.create_task(self._keep_looking())
        await asyncio.gather(*[server.tried for server in self.servers])

    def look(self) -> None:
        """Read the map again."""
        self._is_wrong.set()

    async def stop(self) -> None:
        """Close all connections."""
        if self._task is not None:
            self._task.cancel()
        await asyncio.gather(*[server.stop() for server in self.servers])

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with asyncio.timeout(EVERY):
                    await self._is_wrong.wait()
            except TimeoutError:
                pass
            self._is_wrong.clear()
            try:
                await self._read()
            except (OSError, BackplaneError, ConfigurationError):
                self._is_wrong.set()
            if self._is_wrong.is_set() or not self.is_up:
                self._is_wrong.set()
                await asyncio.sleep(SHORTLY)

    async def _read(self) -> None:
        """Read the map from whoever answers, and go by it."""
        owners: dict[int, Address] = {}
        for start, end, master, *_ in await self._ask_any():
            address = Address(master[0].decode(), int(master[1]))
            owners.update(dict.fromkeys(range(int(start), int(end) + 1), address))
        places = [owners.get(slot_of(partition)) for partition in range(PARTITIONS)]
        await self._go_by(places)

    async def _ask_any(self) -> list[Any]:
        wrong: Exception = Away("no server of the cluster is known")
        for server in self.servers:
            if server.is_up:
                try:
                    return await self._ask(server.commands, None)
                except (TimeoutError, BackplaneError) as error:
                    wrong = error
        for address in dict.fromkeys([*self._seeds, *self._servers]):
            try:
                link, _ = await connect(address, self._setup.credentials, self._setup.timeout)
            except (OSError, BackplaneError) as error:
                wrong = error
                continue
            try:
                return await self._ask(link, address)
            except (TimeoutError, BackplaneError) as error:
                wrong = error
            finally:
                link.close("asked")
                await link.gone()
        raise wrong

    async def _ask(self, link: Link, address: Address | None) -> list[Any]:
        try:
            async with asyncio.timeout(self._setup.timeout):
                slots = await link.ask("CLUSTER", "SLOTS")
        except Refused as error:
            if "disabled" in str(error):
                raise ConfigurationError("Redis is no cluster: its URL begins with redis://") from None
            raise
        for _, _, master, *_ in slots:
            if not master[0]:  # it does not know by which name it is known
                master[0] = link.host.encode()
        return slots  # type: ignore[no-any-return]

    async def _go_by(self, places: list[Address | None]) -> None:
        """Have each partition on its server. The new one is subscribed to before anything else is said there."""
        changed: set[Server] = set()
        for address in {address for address in places if address is not None}:
            partitions = {partition for partition, place in enumerate(places) if place == address}
            server = self._servers.get(address)
            if server is None:
                server = self._servers[address] = Server(self._setup, _at(address), partitions)
            elif partitions - server.partitions:
                changed.add(server)
                self._subscribe(server, partitions - server.partitions)
            server.partitions = partitions
        for address, server in list(self._servers.items()):
            if address not in places:
                del self._servers[address]
                server.close()
        self._places = [None if address is None else self._servers[address] for address in places]
        self._setup.tell_changed()
        for server in changed:
            if server.is_up:
                await server.settle()
                self._setup.on_up(server)

    def _subscribe(self, server: Server, partitions: set[int]) -> None:
        for partition in partitions:
            for channel in self._setup.wanted[partition]:
                server.subscribe(partition, channel, True)


def _at(address: Address) -> Any:
    async def find() -> Address:
        return address

    return find
