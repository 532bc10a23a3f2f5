"""One run of the oracle: a world, a crowd, faults; then peace, and what is true."""

import asyncio
import contextlib
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

from ..clients import js
from .crowd import Balancer, Mortals, NodeClient, Publisher, PythonClient, Tap, dispatch
from .faults import Faults, schedule
from .oracle import ChannelRecord, Verdict, turns
from .world import Gone, World

NODES = 3
ROOMS = [f"room-{number}" for number in range(6)]
CHANNELS = [*ROOMS, "busy-0"]
RATE, BUSY_RATE = 4.0, 30.0  # messages a second and channel
JS_SHARE = 10  # of so many clients one runs in Node
LOBBY_SHARE = 6  # of so many one is in the lobby
BUSY_SHARE = 8
MORTALS_OF_A_NODE = 4
ZOMBIE_SECONDS = 8.5
#: Of all calls of on_user_online and on_user_offline: a node that cannot ask within 2 s decides alone, and one that is
#: killed may have told the store, but nobody else.
MOST_OUT_OF_TURN = 0.05
PATIENCE = 60.0  # seconds that healing may take on a slow machine


class Run:
    """What a run is made of, and what came of it."""

    def __init__(
        self, folder: Path, seconds: float, clients: int, seed: int, *, lease: float, is_lossy: bool, broken: str
    ) -> None:
        self.seconds, self.seed = seconds, seed
        self.source = random.Random(f"crowd {seed}")
        self.verdict = Verdict()
        self.is_lossy = is_lossy
        self.world = World(folder, nodes=NODES, is_lossy=is_lossy, broken=broken, lease=lease)
        self.faults = Faults(self.world)
        self.schedule = schedule(seconds, seed, NODES, is_lossy=is_lossy)
        self.records = [ChannelRecord(name, self.verdict, is_lossy=is_lossy) for name in CHANNELS]
        self.publishers = [
            Publisher(record, self.world, BUSY_RATE if record.name.startswith("busy") else RATE, self.source)
            for record in self.records
        ]
        self.mortals = Mortals(self.world)
        self.clients: list[PythonClient | NodeClient] = []
        self.lobby: set[str] = set()
        self.calls = self.turns = 0
        self._count = clients
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()

    async def run(self) -> Verdict:
        async with self.world, AsyncExitStack() as stack:
            stack.push_async_callback(self._end)
            tap = Tap(self.world, self.records)
            self._begin(tap.run("chaos"))
            await self._crowd(stack)
            for node in self.world.nodes:
                for _ in range(MORTALS_OF_A_NODE):
                    self._begin(self.mortals.live(node))
            await self._settle("everybody is there", lambda: all(s.cursor for c in self.clients for s in c.stories))
            publishing = [asyncio.create_task(publisher.run(self._over)) for publisher in self.publishers]
            await self.faults.run(self.schedule)
            if not self.is_lossy:
                await self._hold_vigil()
            self._over.set()
            await asyncio.gather(*publishing)
            await self._judge(tap)
        return self.verdict

    def _begin(self, work) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.verdict.add("other", f"somebody failed: {result!r}")

    # -- the crowd

    async def _crowd(self, stack: AsyncExitStack) -> None:
        of_node: dict[str, NodeClient] = {}
        driven = None
        if not js.what_node_lacks():
            driven = await stack.enter_async_context(js.node())
            dispatch(driven, of_node)
            balancer = await stack.enter_async_context(Balancer(self.world, self.source))
        for number in range(self._count):
            records = self.source.sample(self.records[:-1], 2)
            if number % BUSY_SHARE == 0:
                records.append(self.records[-1])
            if driven is not None and number % JS_SHARE == 0:
                client = of_node[f"js-{number}"] = NodeClient(f"js-{number}", records, driven, balancer.port)
                await client.start()
            else:
                client = PythonClient(f"py-{number}", records, self.world, self.source)
                if number % LOBBY_SHARE == 1:
                    self.lobby.add(client.user)
                self._begin(client.run(number % LOBBY_SHARE == 1))
            self.clients.append(client)

    # -- what is true

    async def _hold_vigil(self) -> None:
        """Kill a node in peace: its people are gone everywhere after a lease and a beat, and no later."""
        await self._settle("presence before the vigil", self._presence_is_right)
        victim, *others = self.source.sample(self.world.nodes, 3)
        mourned = {user for user, node in self.mortals.at.items() if node is victim}
        await victim.kill()
        killed = time.monotonic()
        await asyncio.sleep(ZOMBIE_SECONDS)
        for node in others:
            there = await node.ask("presence", channel="lobby")
            for user in mourned & there.keys():
                late = time.monotonic() - killed
                self.verdict.add("zombies", f"{user} is at {node.name} {late:.1f} s after {victim.name} was killed")
        await victim.start()

    async def _presence_is_right(self) -> bool:
        expected = self.lobby | self.mortals.at.keys()
        self._presence = {}
        for node in self.world.nodes:
            self._presence[node.name] = set(await node.ask("presence", channel="lobby"))
        return all(there == expected for there in self._presence.values())

    async def _settle(self, what: str, is_true) -> None:
        """Wait until something is true, or say that it does not become so."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(Gone):
                found = is_true()
                if await found if asyncio.iscoroutine(found) else found:
                    return
            await asyncio.sleep(0.2)
        self.verdict.add("presence" if "presence" in what else "other", f"not so after {PATIENCE:.0f} s: {what}")

    async def _judge(self, tap: Tap) -> None:
        for record in self.records:
            await tap.read(record)
        stories = [story for client in self.clients for story in client.stories]
        await self._settle("presence at the end", self._presence_is_right)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and any(story.cursor != story.record.top for story in stories):
            await asyncio.sleep(0.1)
            for record in self.records:
                await tap.read(record)
        for story in stories:
            if story.cursor != story.record.top and not self.is_lossy:
                self.verdict.add(
                    "missed", f"{story.name} ends at {story.cursor}, {story.record.name} at {story.record.top}"
                )
        for record in self.records:
            record.judge()
        for client in self.clients:
            if again := await client.duplicates():
                self.verdict.add("twice", f"{client.user} dropped {again}")
        calls = self.world.online()
        found = turns(calls)
        self.calls, self.turns = len(calls), len(found)
        for fault in found if len(found) > MOST_OUT_OF_TURN * len(calls) else ():
            self.verdict.add("turns", fault)

    def summary(self) -> str:
        heard = sum(story.heard for client in self.clients for story in client.stories)
        recovered = sum(story.recovered for client in self.clients for story in client.stories)
        told = sum(len(story.told) for client in self.clients for story in client.stories)
        stored = sum(len(record.stored) for record in self.records)
        unknown = sum(publisher.given_up for publisher in self.publishers)
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.done.items()))
        of_node = sum(isinstance(client, NodeClient) for client in self.clients)
        return (
            f"{self.seconds:.0f} s, seed {self.seed}: {sum(self.faults.done.values())} faults ({faults});"
            f" {stored:,} messages, {unknown} given up; {len(self.clients)} clients ({of_node} in Node)"
            f" heard {heard:,},"
            f" came back {recovered:,} times with all, and {told:,} times were told that not;"
            f" users on- and offline {self.calls:,} times, {self.turns} not in turn"
        )
