"""No free file descriptors: accepting pauses, is logged once, and resumes when there are some again."""

import asyncio

from fastws.testing import connect

from ..lib.program import line, program
from ..lib.raw import Raw, request
from ..lib.support import needs_proc

SPARE = 20

PROGRAM = f"""
    import logging, os, resource, sys
    from fastws import Listener, Server

    class Lines(logging.Handler):
        def emit(self, record):
            print("log", record.levelname, record.getMessage().replace("\\n", " "), flush=True)

    logging.getLogger("fastws").addHandler(Lines(logging.WARNING))

    class Echo(Listener):
        def on_message(self, ws, message):
            return message

    class Announce(Server):
        async def start(self):
            await super().start()
            limit = len(os.listdir("/proc/self/fd")) - 1 + {SPARE}
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            print("port", self.port, flush=True)

    server = Announce(port=0)
    server.endpoint("/ws", Echo())
    server.run()
"""


@needs_proc
async def test_accept_pauses_is_logged_once_and_goes_on():
    async with program(PROGRAM) as process:
        port = int((await line(process)).removeprefix("port "))
        url = f"ws://127.0.0.1:{port}"
        raws = [await Raw.open(url) for _ in range(SPARE + 10)]
        for raw in raws:
            await raw.send(request("/ws"))
        for raw in raws[:SPARE]:
            assert (await raw.response()).status == 101
        log = await line(process)
        assert log.split()[0] == "log"
        assert "descriptor" in log or "open files" in log
        waiting = asyncio.create_task(process.stdout.readline())
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done, waiting.result()
        for raw in raws[:SPARE]:
            raw.close()
        for raw in raws[SPARE:]:
            assert (await raw.response()).status == 101
            raw.close()
        async with connect(f"{url}/ws") as client:
            await client.send("fine")
            assert await client.receive() == "fine"
        assert not waiting.done(), waiting.result()
        process.terminate()
        assert await waiting == b""
