"""A Redis and nodes on it, each a process, each node behind a link that can be cut."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from ..lib.redis import RedisServer, free_port
from ..lib.relay import Relay

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0
ANSWER_SECONDS = 12.0
OPTIONS = {"prefix": "chaos", "lease": 6.0, "handover": 1.0, "backplane_timeout": 3.0}


class Gone(Exception):
    """A node ended, or did not answer."""


class Node:
    """A node's process, which is killed, stopped and started again; its port stays."""

    def __init__(self, name: str, relay: Relay, calls: Path, options: dict[str, Any], *more: str) -> None:
        self.name, self.relay = name, relay
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self.log = calls.with_name(f"{name}.log")
        self.is_up = False
        url = f"redis://127.0.0.1:{relay.port}"
        self._arguments = [str(self.port), url, name, str(calls), json.dumps(options), *more]
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "tests.chaos.node", *self._arguments]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        async with asyncio.timeout(START_SECONDS):
            if await self._process.stdout.readline() != b"ready\n":
                raise Gone(f"node {self.name} did not start")
        self.is_up = True
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        while line := await process.stdout.readline():
            said = json.loads(line)
            answer = self._asked.pop(said["number"], None)
            if answer is not None and not answer.done():
                answer.set_result(said)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(Gone(f"node {self.name} was killed"))
        self._asked.clear()

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Have it do something. Raises Gone where it does not answer, or the store does not."""
        if not self.is_up:
            raise Gone(f"node {self.name} is down")
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"number": number, "do": do, **arguments}).encode() + b"\n")
        try:
            said = await asyncio.wait_for(answer, ANSWER_SECONDS)
        except TimeoutError:
            raise Gone(f"node {self.name} does not answer") from None
        finally:
            self._asked.pop(number, None)
        if "error" in said:
            raise Gone(said["error"])
        assert "failed" not in said, (said["failed"], self.log.read_text())
        return said["value"]

    async def kill(self) -> None:
        """End it without a word."""
        self.is_up = False
        self._process.kill()
        await self._process.wait()
        await self._reading

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)


class World:
    """`async with World(folder) as world`: a Redis that keeps everything, and nodes."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 3,
        is_lossy: bool = False,
        broken: str = "",
        clocks: Sequence[float] = (),
        **options: Any,
    ) -> None:
        """``clocks`` are how many seconds each node is ahead of the time."""
        kept = [] if is_lossy else ["--appendonly", "yes", "--appendfsync", "always"]
        self.redis = RedisServer(folder, *kept)
        self.calls = folder / "calls"
        self.nodes: list[Node] = []
        self._broken = broken
        self._clocks = clocks or [0.0] * nodes
        self._options = {**OPTIONS, **options}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.redis.start)
        self._stack.callback(self.redis.kill)
        try:
            for number, ahead in enumerate(self._clocks):
                relay = await self._stack.enter_async_context(Relay(self.redis.port))
                node = Node(f"n{number}", relay, self.calls, self._options, self._broken, str(ahead))
                self.nodes.append(node)
            await asyncio.gather(*(node.start() for node in self.nodes))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._end()

    async def _end(self) -> None:
        for node in self.nodes:
            if node.is_up:
                await node.kill()
        await self._stack.aclose()

    def online(self) -> list[tuple[str, str, str]]:
        """Who was said to be online or offline, in the order of time: (node, what, user)."""
        lines = [line.split(" ", 3) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []
        return [(node, what, user) for _, node, what, user in sorted(lines, key=lambda line: int(line[0]))]
