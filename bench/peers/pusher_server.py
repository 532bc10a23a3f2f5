"""fastws with an application of Pusher's."""

import asyncio
import gc
import sys

import uvloop

from fastws import Server
from fastws.pusher.settings import PusherSettings
from fastws.pusher.start import add_to
from fastws.web.app import Web

NAME = "bench"  # id and key
SECRET = "a secret of the benchmark"


async def main(port):
    web = Web()
    server = Server(port=port, http=web, flush_threads=1)
    add_to(server, web, PusherSettings(app_id=NAME, key=NAME, secret=SECRET, events_per_second=1_000_000))
    async with server:
        gc.collect()
        gc.freeze()
        print(f"ready {server.port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[sys.argv.index("--port") + 1])))
