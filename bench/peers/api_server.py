"""fastws with its HTTP API: `/raw/{channel}` to publish to, `/echo`, and `/turns`."""

import asyncio
import gc
import sys
import time

import uvloop

from fastws import Listener, Server
from fastws.access.keys import KeySettings
from fastws.answers import Answer
from fastws.hub import Hub
from fastws.web import api
from fastws.web.app import Web

KEY = "the-key-of-the-benchmark"


class Echo(Listener):
    """Sends every message back."""

    def on_message(self, ws, message):
        return message


class Turns:
    """How much CPU time each turn of the loop takes: what everybody else waits, on a machine that does nothing else."""

    def __init__(self):
        self.taken, self.last = [], 0.0

    def begin(self):
        self.loop = asyncio.get_running_loop()
        self.last = time.thread_time()
        self.loop.call_soon(self.turn)

    def turn(self):
        now = time.thread_time()
        self.taken.append(now - self.last)
        self.last = now
        self.loop.call_soon(self.turn)

    def tell(self, request):
        """Since the last time that somebody asked."""
        taken, self.taken = sorted(self.taken), []
        busy = [seconds for seconds in taken if seconds > 50e-6]  # others only turned round
        if not busy:
            return Answer(200, {"turns": len(taken)})
        ms = {f"p{p}": round(1e3 * busy[len(busy) * p // 100], 2) for p in (50, 99)}
        return Answer(200, {"turns": len(taken), "busy": len(busy), **ms, "max": round(1e3 * busy[-1], 2)})


async def main(port, turns):
    web = Web()
    server = Server(port=port, http=web, ping_interval=0)
    server.endpoint("/raw/{channel}")
    server.endpoint("/echo", Echo())
    api.add_to(web, Hub(server), api.ApiSettings(keys=(KeySettings(name="bench", key=KEY),)))
    counted = Turns()
    web.add("GET", "/turns", counted.tell)
    async with server:
        if turns:
            counted.begin()
        gc.collect()
        gc.freeze()  # or else the collector looks through every module, which takes it 20 ms
        print(f"ready {port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[sys.argv.index("--port") + 1]), "--turns" in sys.argv))
