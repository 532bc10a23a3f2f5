"""Messages between workers, through their hub: ``python -m bench.hub --help``.

So many processes are workers. Each sends messages of 64 bytes to a channel that all listen to, so each goes to all
others, and appends to a log that all follow; the hub runs in this process. Time is CPU time of the processes, since
they share the cores of a machine.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import uvloop

from bench import machine
from fastws.backplane.base import LogName, NodeKey, Record, Subject
from fastws.backplane.hub import HubClient
from fastws.backplane.hub_server import HubServer
from fastws.logs import History, Position

SUBJECT = Subject("channel", "/ws", "bench")
LOG = LogName("/ws", "bench", History())
PAYLOAD = bytes(64)
TICK = 0.001  # seconds
MIB = 1024 * 1024


class Worker:
    """A worker that sends at a rate, and counts what comes."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.received = 0
        self._key = NodeKey(f"{number}", 1)
        self._hub = HubClient(f"hub://{descriptor}")

    def on_connected(self) -> None:
        """The hub is there."""

    def on_disconnected(self, reason: str) -> None:
        """It is not, or has dropped what this worker did not read in time, which is counted."""

    def on_gone(self, node: NodeKey) -> None:
        """Another worker has ended."""

    def on_begun(self, position: Position, reason: str) -> None:
        """The log has begun anew."""

    def on_records(self, previous: Position, records: Sequence[Record]) -> None:
        """The log goes on."""
        self.received += len(records)

    def _receive(self, payload: bytes) -> None:
        self.received += 1

    async def run(self, what: str, rate: float, seconds: float) -> None:
        """Tell, as JSON, what was sent, received and lost, and how long that took."""
        await self._hub.start(self._key, self, prefix="", timeout=30, buffer=64 * MIB)
        await self._hub.listen({SUBJECT: self._receive})
        await self._hub.follow({LOG: self})
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began, cpu, sent = time.perf_counter(), time.process_time(), 0
        while (past := time.perf_counter() - began) < seconds:
            for _ in range(round(past * rate) - sent):
                if what == "messages":
                    self._hub.send(SUBJECT, PAYLOAD)
                else:
                    self._hub.append(LOG, PAYLOAD)
                sent += 1
            await asyncio.sleep(TICK)
        await self._hub.find([])  # everything before it has been answered
        took = time.process_time() - cpu
        print(json.dumps({"sent": sent, "cpu": took, "seconds": past}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps({"received": self.received, "lost": self._hub.lost}), flush=True)
        await self._hub.stop()


async def measure(workers: int, what: str, rate: float, seconds: float) -> str:
    """Returns a line of the table."""
    hub = HubServer()
    running = []
    for number in range(workers):
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            await hub.connect(ours)
            command = [sys.executable, "-m", "bench.hub", "--worker", f"{number}", "--descriptor", f"{theirs.fileno()}"]
            running.append(
                await asyncio.create_subprocess_exec(
                    *command,
                    *("--what", what, "--rate", f"{rate}", "--seconds", f"{seconds}"),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )

    async def lines() -> list[str]:
        return [(await process.stdout.readline()).decode() for process in running if process.stdout]

    def go() -> None:
        for process in running:
            if process.stdin:
                process.stdin.write(b"\n")

    await lines()
    cpu = time.process_time()
    go()
    said = [json.loads(line) for line in await lines()]
    cpu = time.process_time() - cpu
    await asyncio.sleep(0.5)
    go()
    ends = [json.loads(line) for line in await lines()]
    await asyncio.gather(*(process.wait() for process in running))
    await hub.stop()
    sent, own = (sum(each[name] for each in said) for name in ("sent", "cpu"))
    received, lost = (sum(each[name] for each in ends) for name in ("received", "lost"))
    expected = sent * (workers - 1 if what == "messages" else workers)
    return (
        f"{what:9} {sent / max(each['seconds'] for each in said):10,.0f}/s  hub {1e6 * cpu / sent:5.2f} µs each  "
        f"workers {1e6 * own / (sent + received):5.2f} µs for each sent or received  "
        f"dropped {lost:,}, missing {expected - received - lost:,}"
    )


async def table(options: argparse.Namespace) -> None:
    """Print what was measured."""
    here = machine.describe()
    print(f"{here['cpu']}, {here['cores']} cores, Python {here['python']}, {options.workers} workers")
    for what, rates in {"messages": options.rates, "appends": options.append_rates}.items():
        for rate in rates:
            print(await measure(options.workers, what, rate, options.seconds))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub", description="Messages between workers.")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rates", type=float, nargs="*", default=[10_000, 50_000, 100_000], help="of each worker")
    parser.add_argument("--append-rates", type=float, nargs="*", default=[5_000, 20_000], help="of each worker")
    parser.add_argument("--seconds", type=float, default=3)
    for hidden, kind in {"worker": int, "descriptor": int, "rate": float, "what": str}.items():
        parser.add_argument(f"--{hidden}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is None:
        uvloop.run(table(options))
    else:
        uvloop.run(Worker(options.worker, options.descriptor).run(options.what, options.rate, options.seconds))


if __name__ == "__main__":
    main()
