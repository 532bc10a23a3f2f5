"""The clients, who check what they hear; publishers, who number what they say; a tap at the store."""

import asyncio
import contextlib
import random

import orjson

from fastws.backplane.base import BackplaneError, LogName, NodeKey
from fastws.backplane.redis import Redis
from fastws.client import ChannelError, ConnectionClosed, Message, connect
from fastws.logs import Position

from ..lib.relay import Relay
from .node import LOGS, PATH
from .oracle import ChannelRecord, Story
from .world import Gone, Node, World

TAP_SECONDS = 0.2
TRIES = 4
RETRY = (0.1, 2.0)
PATIENCE = 60.0


class Balancer(Relay):
    """Has each connection go to any node."""

    def __init__(self, world: World, source: random.Random) -> None:
        self._world, self._source = world, source
        super().__init__(0)

    @property
    def target(self) -> int:
        return self._source.choice(self._world.nodes).port

    @target.setter
    def target(self, port: int) -> None:
        pass


class PythonClient:
    """One connection of fastws.client, which comes back to any node."""

    def __init__(self, user: str, records: list[ChannelRecord], world: World, source: random.Random) -> None:
        self.user = user
        self.stories = [Story(user, record) for record in records]
        self._world, self._source = world, source
        self._ws = connect(self._url(), retry=RETRY, timeout=PATIENCE)

    def _url(self) -> str:
        return f"{self._source.choice(self._world.nodes).url}?user={self.user}"

    async def run(self, is_in_lobby: bool) -> None:
        """Until it is cancelled."""
        self._ws.on("state", self._state)
        async with self._ws as ws, contextlib.AsyncExitStack() as stack:
            if is_in_lobby:
                await stack.enter_async_context(ws.channel("lobby"))
            await asyncio.gather(*(self._read(ws.channel(story.record.name), story) for story in self.stories))

    def _state(self, state) -> None:
        if state.state == "waiting":
            self._ws.url = self._url()
            self._ws._back_off.most = RETRY[1]

    async def _read(self, channel, story: Story) -> None:
        async with channel:
            async for event in channel.events():
                if isinstance(event, Message):
                    story.message(event.position, event.message)
                else:
                    story.subscribed(event.position, event.recovered, event.reason, event.count)

    async def duplicates(self) -> int:
        return self._ws.duplicates


class NodeClient:
    """The same of fastws.js, in Node."""

    def __init__(self, user: str, records: list[ChannelRecord], driven, port: int) -> None:
        self.user = user
        self.stories = [Story(user, record) for record in records]
        self._driven = driven
        self._url = f"ws://127.0.0.1:{port}/ws?user={user}"

    async def start(self) -> None:
        await self._driven.connect(self._url, self.user, deaf=True, retry=list(RETRY))
        for story in self.stories:
            await self._driven.channel(story.record.name, f"{self.user} {story.record.name}", self.user)

    def heard(self, channel: str, kind: str, value, *about) -> None:
        story = next(story for story in self.stories if story.record.name == channel)
        if kind == "message":
            story.message(about[0]["position"], value)
        elif kind == "subscribed":
            story.subscribed(value["position"], value["recovered"], value.get("reason"), value["count"])

    async def duplicates(self) -> int:
        return await self._driven.ask("get", self.user, "duplicates")


def dispatch(driven, clients: dict[str, NodeClient]) -> None:
    """Have events of Node go to its clients as they come."""
    answered = driven.heard

    def heard(what) -> None:
        if "answer" in what:
            answered(what)
        elif " " in what["event"] and what["values"]:
            user, channel = what["event"].split(" ")
            clients[user].heard(channel, what["type"], *what["values"])

    driven.heard = heard


class Mortals:
    """Users who are on one node, and when it is gone do not come back as the same."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.at: dict[str, Node] = {}  # who is there
        self._lives = 0

    async def live(self, node: Node) -> None:
        """One after the other, until it is cancelled."""
        while True:
            self._lives += 1
            with contextlib.suppress(OSError, TimeoutError, ChannelError, ConnectionClosed):
                await self._live_once(node, f"mortal-{self._lives}")
            await asyncio.sleep(random.uniform(1, 3))

    async def _live_once(self, node: Node, user: str) -> None:
        over = asyncio.Event()
        ws = connect(f"{node.url}?user={user}", retry=(60, 60), timeout=5)
        ws.on("state", lambda state: over.set() if state.state in ("waiting", "closed") else None)
        try:
            async with ws, ws.channel("lobby"):
                self.at[user] = node
                await over.wait()
        finally:
            self.at.pop(user, None)


class Publisher:
    """Numbers what it says in one channel. What no node has acknowledged it says again, as the same."""

    def __init__(self, record: ChannelRecord, world: World, rate: float, source: random.Random) -> None:
        self.record, self.world = record, world
        self.said = self.given_up = 0
        self._rate, self._source = rate, source
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, until: asyncio.Event) -> None:
        while not until.is_set():
            self.said += 1
            task = asyncio.create_task(self._say(self.said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._source.expovariate(self._rate))
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _say(self, number: int) -> None:
        for _ in range(TRIES):
            node = self._source.choice([node for node in self.world.nodes if node.is_up] or self.world.nodes)
            try:
                position = await node.ask(
                    "publish", channel=self.record.name, message=number, id=f"{self.record.name}.{number}"
                )
            except Gone:
                await asyncio.sleep(0.2)
            else:
                self.record.acknowledged[number] = Position.parse(position)
                return
        self.given_up += 1


class Tap:
    """Reads the logs out of the store again and again, so that it has what is trimmed, too."""

    def __init__(self, world: World, records: list[ChannelRecord]) -> None:
        self._store = Redis(world.redis.url)
        self._records = records

    async def run(self, prefix: str) -> None:
        await self._store.start(NodeKey("tap", 1), self, prefix=prefix, timeout=5.0, buffer=1 << 20)
        while True:
            for record in self._records:
                with contextlib.suppress(BackplaneError):
                    await self.read(record)
            await asyncio.sleep(TAP_SECONDS)

    async def read(self, record: ChannelRecord) -> None:
        keep = LOGS[f"{record.name.split('-')[0]}-*"]
        read = await self._store.snapshot(LogName(PATH[0], record.name, keep))
        for each in read.records:
            if each.position.tag > record.top.tag or each.position.offset > record.top.offset:
                record.tap(each.position, orjson.loads(each.payload[1:])["message"])

    def on_connected(self) -> None:
        """Nothing is followed."""

    def on_disconnected(self, reason: str) -> None:
        """It is asked again."""
