"""Scripts, carried out by the server that has their keys, however often that takes."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from ..base import BackplaneError
from .link import Away, Link, Refused
from .names import PARTITIONS
from .scripts import Script, script
from .server import Server, Setup
from .topology import Topology

__all__ = ["Caller"]

ELSEWHERE = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"}  # the slot is being moved
NO_MASTER = {"READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED"}
PAUSE = 0.05  # seconds until it is tried again


class Caller:
    """Asks again while a server is away or a slot on its way. Raises TimeoutError at the deadline."""

    def __init__(self, topology: Topology, setup: Setup) -> None:
        self.topology = topology
        self._setup = setup
        self._timeout = setup.timeout

    async def run(
        self, partition: int, name: str, keys: Sequence[bytes], args: Sequence[Any], *, tells_again: bool = False
    ) -> Any:
        """Returns the reply of a script; raises BackplaneError if there is none in time.

        With ``tells_again`` the script gets one more argument, which says whether it may have been carried out before.
        """
        try:
            deadline = asyncio.get_running_loop().time() + self._timeout
            return await self.until(deadline, partition, name, keys, args, tells_again=tells_again)
        except TimeoutError:
            raise BackplaneError(f"Redis has not answered for {self._timeout:g} s") from None

    async def until(
        self,
        deadline: float,
        partition: int,
        name: str,
        keys: Sequence[bytes],
        args: Sequence[Any],
        *,
        tells_again: bool = False,
    ) -> Any:
        """Returns the reply of a script; raises TimeoutError at the deadline."""
        wanted = script(name)
        again: tuple[str, ...] = ("0",) if tells_again else ()
        async with asyncio.timeout_at(deadline):
            while True:
                server = await self.server(partition)
                link = server.commands
                try:
                    return await link.ask("EVALSHA", wanted.sha, len(keys), *keys, *args, *again)
                except Away:
                    pass
                except Refused as error:
                    await self._mend(error, server, link, wanted)
                again = ("1",) if tells_again else ()

    async def command(self, partition: int, *command: Any) -> Any:
        """Returns the reply of a command that only reads."""
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    server = await self.server(partition)
                    link = server.commands
                    try:
                        return await link.ask(*command)
                    except Away:
                        pass
                    except Refused as error:
                        await self._mend(error, server, link, None)
        except TimeoutError:
            raise BackplaneError(f"Redis has not answered for {self._timeout:g} s") from None

    async def server(self, partition: int) -> Server:
        """Returns the server of a partition, once it is up."""
        while True:
            server = self.topology.of(partition)
            if server is not None and server.is_up:
                return server
            await self._setup.changed.wait()

    async def _mend(self, error: Refused, server: Server, link: Link, wanted: Script | None) -> None:
        """Do what makes it worth while to ask again; raises the error where nothing does."""
        if error.code == "NOSCRIPT" and wanted is not None:
            with contextlib.suppress(Away):
                await link.ask("SCRIPT", "LOAD", wanted.text)
            return
        if error.code in NO_MASTER:
            server.drop(str(error))
        elif error.code not in ELSEWHERE:
            raise BackplaneError(f"Redis refuses: {error}") from None
        self.topology.look()
        await asyncio.sleep(PAUSE)

    def lanes(self) -> list[int]:
        """Returns the partitions that stand for all."""
        return sorted({self.topology.lane(partition) for partition in range(PARTITIONS)})
