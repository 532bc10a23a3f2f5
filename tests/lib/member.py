"""One node as a process of its own, so that it can be killed and stopped: ``python -m tests.lib.member URL OPTIONS``.

It says what its listener is called with, a JSON list a line, and does what it is told, a JSON list a line.
"""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from fastws import Listener, Server
from tests.lib.raw import TIMEOUT

ROOT = Path(__file__).parent.parent.parent


def say(*event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Telling(Listener):
    def on_handshake(self, request):
        request.user = request.query.get("user")

    def on_subscribe(self, ws, channel, subscribers):
        say("on_subscribe", ws.user)

    def on_message(self, ws, message):
        say("on_message", ws.user, message)

    def on_close(self, ws, code, reason):
        say("on_close", ws.user, code)

    def on_user_online(self, user):
        say("on_user_online", user)

    def on_user_offline(self, user):
        say("on_user_offline", user)


async def main(url, options):
    server = Server(port=0, backplane=url, **options)
    manager = server.endpoint("/ws/{channel}", Telling())
    async with server:
        say("ready", server.port, server.nodes[0].id)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            do, *arguments = json.loads(line)
            getattr(manager, do)(*arguments)


class Member:
    """Such a process, as a test has it."""

    def __init__(self, url, **options):
        self.events = []
        self._more = threading.Condition()
        command = [sys.executable, "-m", "tests.lib.member", url, json.dumps(options)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._more:
                self.events.append(tuple(json.loads(line)))
                self._more.notify_all()

    async def until(self, *event, times=1):
        """Wait for so many events that begin like this; returns the last of them."""

        def found():
            return [each for each in self.events if each[: len(event)] == event]

        def wait():
            with self._more:
                assert self._more.wait_for(lambda: len(found()) >= times, TIMEOUT), self.events
                return found()[times - 1]

        return await asyncio.to_thread(wait)

    async def ready(self):
        _, port, self.id = await self.until("ready")
        self.url = f"ws://127.0.0.1:{port}"
        return self

    def do(self, *command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        self.signal(signal.SIGKILL)
        self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        self.process.stdin.close()
        self.process.stdout.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
