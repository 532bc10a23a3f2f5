"""What an open status page costs beside a fan-out: `python -m bench.status_page [--connections 1000] [--seconds 10]`.

The server runs in its own process. It broadcasts at a steady rate to its connections, with and without an open page, in
turns. The figure is the CPU time of that process.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

KEY = "0123456789abcdef"
SETTINGS = f"""
port = 0
[api]
[[api.keys]]
name = "bench"
key = "{KEY}"
[raw]
[admin]
[[channels]]
pattern = "*"
subscribe = "anyone"
"""
MESSAGE = "x" * 128
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """CPU seconds of a process, exact to a tick of the clock, or to 1 ns where the kernel tells that."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    try:
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


async def drain(ws: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in ws:
        pass


async def publish(session: aiohttp.ClientSession, url: str, rate: float, seconds: float) -> None:
    """Broadcast at a steady rate."""
    begin = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        body = {"channel": "all", "text": MESSAGE}
        async with session.post(f"{url}/api/broadcast", json=body, headers={"X-API-Key": KEY}) as answer:
            assert answer.status == 200, await answer.text()
    await asyncio.sleep(max(0.0, begin + seconds - time.perf_counter()))


async def measure(pid: int, url: str, options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        readers = []
        for _ in range(options.connections):
            readers.append(asyncio.create_task(drain(await session.ws_connect(f"{url}/raw/all"))))
        spent: dict[str, list[float]] = {"without": [], "with": []}
        await publish(session, url, options.rate, 1)
        for turn in range(options.turns * 2):
            page = None
            if turn % 2:
                page = await session.ws_connect(f"{url}/admin/ws")
                await page.send_json({"key": KEY})
                assert json.loads((await page.receive()).data)["type"] == "welcome"
                readers.append(asyncio.create_task(drain(page)))
            before = cpu(pid)
            await publish(session, url, options.rate, options.seconds)
            spent["with" if page else "without"].append((cpu(pid) - before) / options.seconds)
            if page is not None:
                await page.close()
        for reader in readers:
            reader.cancel()
    without, beside = (statistics.median(spent[name]) for name in ("without", "with"))
    print(f"{options.connections:,} connections, {options.rate:g} broadcasts a second, {options.turns} turns each")
    print(f"without a page: {without:.2%} of a core (of {', '.join(f'{each:.2%}' for each in spent['without'])})")
    print(f"with one:       {beside:.2%} of a core (of {', '.join(f'{each:.2%}' for each in spent['with'])})")
    print(f"the page:       {beside - without:+.2%} of a core, {beside / without - 1:+.1%} of what the server used")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20, help="broadcasts a second")
    parser.add_argument("--seconds", type=float, default=8, help="of each turn")
    parser.add_argument("--turns", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "fastws.toml").write_text(SETTINGS)
        command = [sys.executable, "-m", "fastws", "serve"]
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_WAIT_POLICY": "passive"}
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                url = server.stdout.readline().split()[3]
                asyncio.run(measure(server.pid, url, options))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
