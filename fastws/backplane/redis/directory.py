"""Which nodes a user is on: a hash for each user, and a set of what each node has."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ..base import BackplaneError, NodeKey, UserName
from .caller import Caller
from .lanes import Item, Lane
from .link import pack
from .names import Names, user_of
from .scripts import script

__all__ = ["Directory"]

BATCH = 256  # users in one call


class Directory:
    """What `Backplane` says of users.

    A node remembers what it has claimed: a store that came back without that gets it again.
    """

    def __init__(self, caller: Caller, names: Names, node: NodeKey, timeout: float) -> None:
        self.node = node
        self._caller, self._names, self._timeout = caller, names, timeout
        self._claimed: dict[int, dict[UserName, None]] = defaultdict(dict)  # by lane
        self._lanes: dict[int, Lane[tuple[UserName, bool]]] = {}

    async def claim(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """This node has these users. Returns who else has each."""
        node = self.node
        found = await self._put(users, is_release=False)
        return [[other for other in nodes if other != node] for nodes in found]

    async def release(self, users: Sequence[UserName], node: NodeKey | None) -> list[list[NodeKey]]:
        """A node has these users no more. Returns who still has each."""
        if node is None or node == self.node:
            return await self._put(users, is_release=True)
        return await self._in_lanes(users, lambda lane, part: self._release_for(node, lane, part))

    async def find(self, users: Sequence[UserName]) -> list[list[NodeKey]]:
        """Returns who has each."""
        return await self._in_lanes(users, self._find)

    async def holdings(self, node: NodeKey) -> list[UserName]:
        """Returns what a node has claimed and not released."""
        found = await asyncio.gather(*[self._held(lane, node) for lane in self._caller.lanes()])
        return [user for users in found for user in users]

    def route(self, users: Sequence[UserName], payload: bytes) -> tuple[int, bytes] | None:
        """Returns what sends once to each other node that has any of the users, and where; None if that is two."""
        if len(self._by_lane(users)) != 1:
            return None
        keys = [self._names.user(user) for user in users]
        # A script publishes in the slot of its keys, where each node has an inbox.
        args = (self.node.id, self._names.inbox(keys[0].partition), payload)
        command = pack("EVALSHA", script("route").sha, len(keys), *[key.key for key in keys], *args)
        return self._caller.topology.lane(keys[0].partition), command

    def rename(self, node: NodeKey) -> None:
        """Go on as another, which has no users yet."""
        self.node = node
        self._claimed.clear()

    async def reconcile(self) -> None:
        """Claim again what a store that came back has lost, and release what it should not have."""
        for partition, lane in list(self._lanes.items()):
            number = await self._caller.command(partition, "HGET", self._called(partition), str(self.node))
            if int(number or 0) < lane.finished:
                held = set(await self._held(partition, self.node))
                claimed = self._claimed[partition]
                self._queue(partition, [user for user in held if user not in claimed], is_release=True)
                self._queue(partition, list(claimed), is_release=False)

    async def release_all(self, old: NodeKey) -> None:
        """Release what a former self still has, which whoever buried it may have overlooked: its last calls."""
        await self.idle()
        await self.release(await self.holdings(old), old)
        await self.forget(old)

    async def forget(self, node: NodeKey) -> None:
        """Remove what tells of a node's calls; it makes none any more."""
        for lane in self._caller.lanes():
            await self._caller.command(lane, "HDEL", self._called(lane), str(node))

    async def idle(self) -> None:
        """Wait until nothing is waiting."""
        await asyncio.gather(*[lane.idle() for lane in self._lanes.values()])

    def close(self, error: BackplaneError) -> None:
        """Give up whatever is waiting."""
        for lane in self._lanes.values():
            lane.close(error)

    # -- claims and releases of this node, one call after the other

    async def _put(self, users: Sequence[UserName], *, is_release: bool) -> list[list[NodeKey]]:
        done: list[asyncio.Future[list[NodeKey]] | None] = [None] * len(users)
        for lane, places in self._by_lane(users).items():
            claimed = self._claimed[lane]
            for place in places:
                if is_release:
                    claimed.pop(users[place], None)
                else:
                    claimed[users[place]] = None
            for place, future in zip(
                places, self._queue(lane, [users[n] for n in places], is_release=is_release), strict=True
            ):
                done[place] = future
        return list(await asyncio.gather(*done))  # type: ignore[arg-type]

    def _queue(
        self, partition: int, users: Sequence[UserName], *, is_release: bool
    ) -> list[asyncio.Future[list[NodeKey]]]:
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = Lane(self._carry_out(partition), BATCH, BATCH)
        deadline = asyncio.get_running_loop().time() + self._timeout
        futures = []
        for user in users:
            item = Item((user, is_release), 1, deadline, self.node)
            lane.put(item)
            futures.append(item.done)
        return futures

    def _carry_out(self, partition: int) -> Callable[..., Any]:
        async def carry_out(
            items: list[Item[tuple[UserName, bool]]], number: int, deadline: float
        ) -> list[list[NodeKey]]:
            (node, keys) = items[0].group, [self._names.user(item.value[0]) for item in items]
            args: list[Any] = [str(node), number]
            for item, key in zip(items, keys, strict=True):
                args += [int(item.value[1]), key.name]
            names = [self._called(partition), self._names.holdings(partition, node), *[key.key for key in keys]]  # type: ignore[arg-type]
            return _nodes(await self._caller.until(deadline, partition, "claim", names, args))

        return carry_out

    # -- in all lanes

    def _by_lane(self, users: Sequence[UserName]) -> dict[int, list[int]]:
        lanes: dict[int, list[int]] = defaultdict(list)
        for place, user in enumerate(users):
            lanes[self._caller.topology.lane(self._names.user(user).partition)].append(place)
        return lanes

    async def _in_lanes(self, users: Sequence[UserName], ask: Callable[..., Any]) -> list[list[NodeKey]]:
        answer: list[list[NodeKey]] = [[] for _ in users]
        parts = [
            (lane, places[start : start + BATCH])
            for lane, places in self._by_lane(users).items()
            for start in range(0, len(places), BATCH)
        ]
        replies = await asyncio.gather(*[ask(lane, [users[place] for place in places]) for lane, places in parts])
        for (_, places), reply in zip(parts, replies, strict=True):
            for place, nodes in zip(places, _nodes(reply), strict=True):
                answer[place] = nodes
        return answer

    async def _find(self, lane: int, users: list[UserName]) -> Any:
        return await self._caller.run(lane, "find", [self._names.user(user).key for user in users], [])

    async def _release_for(self, node: NodeKey, lane: int, users: list[UserName]) -> Any:
        keys = [self._names.user(user) for user in users]
        args: list[Any] = [str(node), 0]
        for key in keys:
            args += [1, key.name]
        names = [self._called(lane), self._names.holdings(lane, node), *[key.key for key in keys]]
        return await self._caller.run(lane, "claim", names, args)

    async def _held(self, lane: int, node: NodeKey) -> list[UserName]:
        cursor, users = b"0", dict[bytes, None]()
        while True:
            cursor, names = await self._caller.command(
                lane, "SSCAN", self._names.holdings(lane, node), cursor, "COUNT", 1000
            )
            users.update(dict.fromkeys(names))
            if cursor == b"0":
                return [user_of(name) for name in users]

    def _called(self, partition: int) -> bytes:
        return self._names.key(partition, b"g")


def _nodes(reply: list[bytes]) -> list[list[NodeKey]]:
    return [[NodeKey.parse(node) for node in nodes.decode().split("\n")] if nodes else [] for nodes in reply]
