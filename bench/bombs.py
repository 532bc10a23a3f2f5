"""Compressed bombs beside an echo: `python -m bench.bombs` throws 10,000 at a server in a process of its own.

For comparison as many connections come that send only a Close.
"""

import asyncio
import logging
import subprocess
import sys
import time
from pathlib import Path

from fastws import Listener, Server
from fastws.testing import running
from tests.hostile.bombs import BOMB, LIMIT, echoes, throw
from tests.lib.raw import close_frame

ROUNDS, BOMBS, PEERS = 2, 5_000, 4


class Echo(Listener):
    """Sends every message back."""

    def on_message(self, ws, message):
        return message


async def serve():
    """The server, until its input ends; it prints where it is."""
    logging.disable()  # a line for each bomb
    server = Server(port=0, compression="shared", max_message_size=LIMIT)
    server.endpoint("/ws/{channel}", Echo())
    async with running(server) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def echo(url):
    """A client that has messages echoed until its input ends; it prints how long that took."""
    seconds = await echoes(url, asyncio.ensure_future(asyncio.to_thread(sys.stdin.read)))
    print(f"{len(seconds):,} echoes: {milliseconds(seconds)}")


def start(*arguments):
    command = (sys.executable, "-m", "bench.bombs", *arguments)
    return asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def main():
    server = await start("serve")
    url = (await server.stdout.readline()).decode().strip()
    for _ in range(ROUNDS):
        for name, data in (("Closes", close_frame()), ("bombs", BOMB)):
            client, begun = await start("echo", url), time.perf_counter()
            codes = await throw(url, BOMBS, PEERS, data)
            took = time.perf_counter() - begun
            print(f"{len(codes):,} {name} in {took:.1f} s; connections ended with {sorted(set(codes))}")
            said, _ = await client.communicate(b"")
            print(f"  {said.decode().strip()}")
            print(f"  the server holds {megabytes(server.pid, 'VmRSS')}, at most {megabytes(server.pid, 'VmHWM')}")
    await server.communicate(b"")


def milliseconds(seconds):
    places = {"p50": len(seconds) // 2, "p99": len(seconds) * 99 // 100, "max": -1}
    return ", ".join(f"{name} {1e3 * seconds[place]:.2f} ms" for name, place in places.items())


def megabytes(pid, field):
    """Returns memory of a process, as /proc/PID/status has it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(f"{int(line.split()[1]) / 1e3:.1f} MB" for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    asyncio.run({"": main, "serve": serve, "echo": echo}["".join(sys.argv[1:2])](*sys.argv[2:]))
