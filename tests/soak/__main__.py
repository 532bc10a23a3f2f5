"""Runs the soak test, prints its progress and a summary, and exits with 1 if anything was wrong."""

import argparse
import asyncio
import random
import resource
import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import uvloop

from ..lib.support import what_is_left
from .crowd import PATIENCE, PESTS, Tally, guest, pester, stall

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20
GROWTH = 0.05, 4 * MIB  # memory may grow by this fraction plus this many bytes: heaps fluctuate
LONG_ENOUGH = 60.0  # seconds needed to judge memory: a heap takes time to warm up
COMING = 5.0  # seconds in which the first clients arrive
PROGRESS = 10.0  # seconds between lines
KINDS = ["guest"] * 14 + ["stall"] * 3 + ["pest"] * 3  # of clients, at any time


class Server:
    """The server's process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"ws://127.0.0.1:{port}"

    async def holds(self, question: bytes = b"") -> dict:
        """What it holds now (server.py)."""
        self.process.stdin.write(question + b"\n")
        async with asyncio.timeout(PATIENCE):
            told = await self.process.stdout.readline()
        if not told:
            raise RuntimeError(f"the server's process ended with {await self.process.wait()}")
        return orjson.loads(told)


@asynccontextmanager
async def started():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.server", cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Server(process, int(await process.stdout.readline()))
        process.stdin.close()
        await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Soak:
    """One run: the crowd, what it has seen, and what the server held each second."""

    def __init__(self, server: Server, seconds: float, clients: int, seed: int) -> None:
        self.server = server
        self.seconds = seconds
        self.clients = clients
        self.seed = seed
        self.tally = Tally()
        self.over = asyncio.Event()
        self.memory: list[tuple[float, int]] = []  # by seconds since the start
        self.descriptors = 0

    async def run(self) -> list[str]:
        """What was wrong."""
        before = await self.server.holds(b"objects")
        crowd = [asyncio.create_task(self.client(number)) for number in range(self.clients)]
        await self.watch()
        self.over.set()
        await asyncio.gather(*crowd)
        await self.find_nothing(before)
        self.judge_memory()
        return self.tally.faults

    async def client(self, number: int) -> None:
        """One client after another, until the end."""
        source = random.Random(f"{self.seed} {number}")
        kind = KINDS[number % len(KINDS)]
        await asyncio.sleep(source.random() * COMING)
        lives = 0
        while not self.over.is_set():
            lives += 1
            if kind == "guest":
                await guest(self.server.url, f"{number}-{lives}", source, self.over, self.tally)
            else:
                pest = stall if kind == "stall" else source.choice(PESTS)
                await pester(self.server.url, pest, source, self.tally)
                await asyncio.sleep(source.random())

    async def watch(self) -> None:
        """Ask the server each second."""
        started = time.monotonic()
        told = PROGRESS
        while (elapsed := time.monotonic() - started) < self.seconds:
            holds = await self.server.holds()
            self.memory.append((elapsed, holds["rss"]))
            self.descriptors = max(self.descriptors, holds["descriptors"])
            if elapsed >= told:
                told += PROGRESS
                self.progress(elapsed, holds)
            await asyncio.sleep(1)

    def progress(self, elapsed: float, holds: dict) -> None:
        tally, stats = self.tally, holds["stats"]
        slow = sum(endpoint["closed_slow"] for endpoint in stats)
        dropped = sum(endpoint["dropped_oldest"] + endpoint["dropped_newest"] for endpoint in stats)
        print(
            f"{elapsed:5.0f} s  {holds['counters']['connections']:5,} connected  {tally.joined:7,} guests"
            f"  {tally.pestered:7,} pests  {tally.heard:10,} heard  {slow:5,} too slow  {dropped:8,} dropped"
            f"  {holds['rss'] / MIB:6.1f} MiB  {holds['descriptors']:5,} descriptors  {len(tally.faults)} faults",
            flush=True,
        )

    async def find_nothing(self, before: dict) -> None:
        """Everybody has left: the server must hold what it held before anybody came."""
        deadline = time.monotonic() + PATIENCE
        while (left := self.left(before, await self.server.holds(b"objects"))) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        self.tally.faults += left

    @staticmethod
    def left(before: dict, holds: dict) -> list[str]:
        left = [f"{name} is {value} at the end" for name, value in what_is_left(holds["counters"]).items()]
        for name in ("descriptors", "channels", "users", "tasks", "websockets"):
            if holds[name] > before[name]:
                left.append(f"{name} were {before[name]} before and are {holds[name]} at the end")
        left += [f"the server logged: {line}" for line in holds["errors"]]
        return left

    def quarter(self, number: int) -> float:
        """The median of resident bytes in a quarter of the time."""
        part = self.seconds / 4
        return statistics.median(rss for at, rss in self.memory if number * part <= at < (number + 1) * part)

    def judge_memory(self) -> None:
        """The first quarter is for warming up; the last must not be much above the second."""
        warm, end = self.quarter(1), self.quarter(3)
        part, more = GROWTH
        if self.seconds >= LONG_ENOUGH and end > warm * (1 + part) + more:
            self.tally.faults.append(f"memory grew from {warm / MIB:.1f} to {end / MIB:.1f} MiB")

    def summary(self) -> None:
        tally, faults = self.tally, self.tally.faults
        print(
            f"{self.seconds:.0f} s, {tally.joined:,} guests, {tally.pestered:,} pests; {tally.heard:,} messages heard;"
            f" memory {self.quarter(1) / MIB:.1f} MiB in the second quarter, {self.quarter(3) / MIB:.1f} MiB"
            f" in the last; at most {self.descriptors:,} descriptors; {len(faults)} faults"
        )
        for fault in faults[:20]:
            print(f"fault: {fault}")


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A crowd that comes and goes.")
    parser.add_argument("--seconds", type=float, default=600, help="how long they come (default 600)")
    parser.add_argument("--clients", type=int, default=2000, help="how many are there at a time (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other clients")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < options.clients + 100:
        parser.error(
            f"{options.clients} clients need {options.clients + 100} open files: raise `ulimit -n` from {most}"
        )
    async with started() as server:
        soak = Soak(server, options.seconds, options.clients, options.seed)
        faults = await soak.run()
        soak.summary()
    return 1 if faults or server.process.returncode else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
