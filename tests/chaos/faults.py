"""What happens to the nodes and their store, and when: the same for the same seed."""

import asyncio
import random
from collections import Counter
from typing import NamedTuple

from .world import Node, World

__all__ = ["Fault", "Faults", "schedule"]

GAP = 1.0, 5.0  # seconds between faults
#: How long each lasts, in seconds.
LASTING = {
    "kill": (0.2, 4.0),
    "stop": (1.0, 15.0),
    "reset": (0.0, 0.0),
    "cut": (0.0, 0.0),
    "freeze": (1.0, 8.0),
    "drop": (0.0, 0.0),
    "restart": (0.1, 3.0),
}


class Fault(NamedTuple):
    """One of `LASTING`, so many seconds after the start."""

    at: float
    kind: str
    node: int
    seconds: float

    def __str__(self) -> str:
        where = "" if self.kind in ("drop", "restart") else f" n{self.node}"
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:6.1f} s  {self.kind}{where}{lasting}"


def schedule(seconds: float, seed: int, nodes: int, *, is_lossy: bool = False) -> list[Fault]:
    """Returns faults: of each kind one, then again, in another order each time."""
    source = random.Random(seed)
    faults: list[Fault] = []
    deck: list[str] = []
    at = source.uniform(*GAP)
    while at < seconds:
        if not deck:
            deck = ["restart", "restart", "drop", "reset", "stop"] if is_lossy else list(LASTING)
            source.shuffle(deck)
        kind = deck.pop()
        faults.append(Fault(at, kind, source.randrange(nodes), source.uniform(*LASTING[kind])))
        at += source.uniform(*GAP)
    return faults


class Faults:
    """Does to a world what a schedule says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: Counter[str] = Counter()
        self._busy: set[object] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, faults: list[Fault]) -> None:
        """Returns when the last one is over."""
        began = asyncio.get_running_loop().time()
        for fault in faults:
            await asyncio.sleep(began + fault.at - asyncio.get_running_loop().time())
            self.begin(fault)
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def begin(self, fault: Fault) -> None:
        """Where it happens already, it happens to the next node."""
        nodes = self.world.nodes
        for node in (*nodes[fault.node :], *nodes[: fault.node]):
            target = {"restart": self.world.redis, "drop": self.world.redis, "freeze": node.relay}.get(fault.kind, node)
            if target not in self._busy:
                self._busy.add(target)
                self.done[fault.kind] += 1
                task = asyncio.create_task(self._do(fault, node, target))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return

    async def _do(self, fault: Fault, node: Node, target: object) -> None:
        try:
            await getattr(self, f"_{fault.kind}")(node, fault.seconds)
        finally:
            self._busy.discard(target)

    async def _kill(self, node, seconds):
        await node.kill()
        await asyncio.sleep(seconds)
        await node.start()

    async def _stop(self, node, seconds):
        node.pause()
        await asyncio.sleep(seconds)
        node.go_on()

    async def _reset(self, node, seconds):
        node.relay.reset()

    async def _cut(self, node, seconds):
        """In the middle of what Redis says."""
        node.relay.cut_after(500)

    async def _freeze(self, node, seconds):
        node.relay.freeze()
        await asyncio.sleep(seconds)
        node.relay.thaw()

    async def _drop(self, node, seconds):
        for kind in ("pubsub", "normal"):
            await asyncio.to_thread(self.world.redis.say, "CLIENT", "KILL", "TYPE", kind)

    async def _restart(self, node, seconds):
        """With its log of appends; without one, with what it had saved a while ago."""
        redis = self.world.redis
        if not redis.options:
            await asyncio.to_thread(redis.say, "SAVE")
            await asyncio.sleep(2)
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(redis.start)
