"""fastws with its HTTP API: `/raw/{channel}` to publish to, and `/echo`."""

import asyncio
import os
import sys

import uvloop

from fastws import Listener, Server
from fastws.access.keys import KeySettings
from fastws.hub import Hub
from fastws.web import api
from fastws.web.app import Web

KEY = "the-key-of-the-benchmark"


class Echo(Listener):
    """Sends every message back."""

    def on_message(self, ws, message):
        return message


async def main(port):
    web = Web()
    server = Server(port=port, http=web, ping_interval=0)
    server.endpoint("/raw/{channel}")
    server.endpoint("/echo", Echo())
    api.add_to(web, Hub(server), api.ApiSettings(keys=(KeySettings(name="bench", key=KEY),)))
    async with server:
        print(f"ready {port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    if "--profile" in sys.argv:
        import cProfile
        import signal

        profile = cProfile.Profile()

        def end(*_):
            profile.disable()
            profile.dump_stats(os.environ["PROFILE"])
            os._exit(0)

        signal.signal(signal.SIGTERM, end)
        profile.enable()
    uvloop.run(main(port))
