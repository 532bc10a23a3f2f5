"""What it costs that a worker is killed: ``python -m bench.workers [WORKERS [KILLS]]``.

Newcomers come one after the other, eight at a time, and stay for a message; now and then a worker is killed (SIGKILL).
How long did they wait, and how long until another worker says that the users of the dead one are offline?
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench import machine
from fastws.testing import connect

APP = """
import os, time
from fastws import Listener, Server

class Who(Listener):
    def on_handshake(self, request):
        request.user = request.query.get("user")

    def on_open(self, ws):
        ws.send(str(os.getpid()))

    def on_message(self, ws, message):
        return message

    def on_user_offline(self, user):
        with open("offline", "a") as file:
            file.write(f"{user} {time.monotonic()}\\n")

def create():
    server = Server()
    server.endpoint("/who", Who())
    return server
"""
AT_ONCE = 8
PAUSE = 0.01  # seconds between two of a kind
REST = 3.0  # seconds between kills, in which the next worker starts


class Newcomers:
    """Clients, and how long each had to wait."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.waits: list[tuple[float, float]] = []  # when it came, and how long it waited for its message, in seconds
        self.refused = self.cut = 0

    async def come(self) -> None:
        """One after the other, until this is cancelled."""
        while True:
            began = time.monotonic()
            try:
                async with connect(self.url, timeout=30) as client:
                    await client.receive()
            except ConnectionRefusedError:
                self.refused += 1
            except Exception:
                self.cut += 1  # it was with the worker that was killed
            else:
                self.waits.append((began, time.monotonic() - began))
            await asyncio.sleep(PAUSE)

    def longest(self, since: float, until: float) -> float:
        """Returns the longest that anybody waited who came in some time."""
        return max(wait for came, wait in self.waits if since <= came < until)


async def kill(url: str, user: str) -> float:
    """Kill the worker where this user is; returns when."""
    async with connect(f"{url}?user={user}", timeout=30) as client:
        pid = int(await client.receive())
        await client.send("are the others told of me?")
        await client.receive()
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return killed


async def measure(port: int, folder: Path, kills: int) -> None:
    """Print how long it took, at rest and after each kill."""
    newcomers = Newcomers(f"ws://127.0.0.1:{port}/who")
    tasks = [asyncio.ensure_future(newcomers.come()) for _ in range(AT_ONCE)]
    await asyncio.sleep(REST)
    at_rest = newcomers.longest(0, time.monotonic())
    after, offline = [], []
    for number in range(kills):
        user = f"user{number}"
        killed = await kill(newcomers.url, user)
        await asyncio.sleep(REST)
        after.append(1000 * newcomers.longest(killed, killed + REST / 2))
        (said,) = re.findall(rf"^{user} (\S+)$", folder.joinpath("offline").read_text(), re.M)
        offline.append(1000 * (float(said) - killed))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(f"{len(newcomers.waits):,} newcomers; the longest wait at rest {1000 * at_rest:.0f} ms")
    for what, times in {"the longest wait after a kill": after, "the user offline after a kill": offline}.items():
        print(f"{what}: median of {kills} {sorted(times)[kills // 2]:.0f} ms, most {max(times):.0f} ms")
    print(f"refused {newcomers.refused}, cut off with their worker {newcomers.cut}")


def main() -> None:
    """The command line."""
    given = list(map(int, sys.argv[1:]))
    workers, kills = given + [4, 10][len(given) :]
    here = machine.describe()
    print(f"{here['cpu']}, {here['cores']} cores, Python {here['python']}, {workers} workers")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APP)
        command = [sys.executable, "-m", "fastws", "serve", "app:create", "--port", "0", "--workers", f"{workers}"]
        paths = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
        with subprocess.Popen(
            [*command, "--log-level", "error"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                found = re.search(r":(\d+)", process.stdout.readline())
                assert found is not None
                uvloop.run(measure(int(found[1]), Path(folder), kills))
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
