"""One node of the oracle, in a process of its own: it does what lines of stdin say, and answers on stdout.

Whoever it says is online or offline goes into a file, which survives the process.
"""

import asyncio
import json
import logging
import os
import sys
import time

import uvloop

from fastws import History, Server
from fastws.access.rules import ChannelRule, Rules
from fastws.cluster.directory import CLAIM_SECONDS, Directory
from fastws.errors import BackplaneError
from fastws.logs import Latest
from fastws.testing import running
from fastws.v1.listener import ChannelListener

from .mutations import break_rule

logger = logging.getLogger("tests.chaos")

PATH = ["/ws", "/ws/{room}"]
SIZE, BUSY_SIZE = 2_000, 200
LOGS = {"room-*": History(SIZE, 3600), "busy-*": History(BUSY_SIZE, 3600), "price-*": Latest()}
HEARTBEAT = 2.0  # seconds: so clients of a node that stands still soon go to another
RULES = [
    ChannelRule(pattern="lobby", subscribe="anyone", publish="anyone", presence=True),
    ChannelRule(pattern="*", subscribe="anyone", publish="anyone", whisper="member"),
]


class Node(ChannelListener):
    """Users by the query string; whatever is asked is answered."""

    def __init__(self, name: str, calls: str) -> None:
        super().__init__(Rules(RULES), heartbeat=HEARTBEAT)
        self.name = name
        self.calls = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def on_handshake(self, request):
        request.user = request.query.get("user")
        return super().on_handshake(request)

    def on_user_online(self, user):
        self.note("online", user)

    def on_user_offline(self, user):
        self.note("offline", user)

    def note(self, what, user):
        os.write(self.calls, f"{time.monotonic_ns()} {self.name} {what} {user}\n".encode())

    async def answer(self, asked):
        try:
            value = await getattr(self, f"do_{asked.pop('do')}")(**asked)
        except BackplaneError as error:
            return {"error": str(error)}
        except Exception as error:
            logger.exception("a question failed")
            return {"failed": repr(error)}
        return {"value": value}

    async def do_publish(self, channel, message, id=None):
        return str(await self.home.publish(channel, message, id=id))

    async def do_broadcast(self, channel, message):
        return self.home.broadcast(channel, message)

    async def do_presence(self, channel):
        return {user: there.devices for user, there in self.home.presence(channel).items()}

    async def do_close_user(self, user):
        return self.home.close_user(user)

    async def do_users(self):
        return list(self.home.users)

    async def do_stats(self):
        return self.server.stats["cluster"]

    async def do_nodes(self):
        return [node.id for node in self.server.nodes]


def note_who_is_let_in_alone(node: Node) -> None:
    """A node that cannot ask the store in time decides alone, and may be wrong: write down about whom."""
    ask = Directory.came

    async def came(self, user):
        began = time.monotonic()
        is_only = await ask(self, user)
        if time.monotonic() - began >= CLAIM_SECONDS:
            node.note("alone", user.name)
        return is_only

    Directory.came = came


def set_clock(ahead: float) -> None:
    """Have this process be wrong about the time, by so many seconds."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + ahead
    time.time_ns = lambda: nanoseconds() + int(ahead * 1e9)


async def main(port: str, url: str, name: str, calls: str, options: str, broken: str, ahead: str) -> None:
    if broken:
        break_rule(broken)
    if float(ahead):
        set_clock(float(ahead))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    listener = Node(name, calls)
    note_who_is_let_in_alone(listener)
    server = Server(port=int(port), backplane=url, **json.loads(options))
    listener.home = server.endpoint(PATH, listener, logs=LOGS)
    listener.server = server
    reader, out = asyncio.StreamReader(), sys.stdout.buffer
    tasks = set()

    async def answer(asked):
        number = asked.pop("number")
        out.write(json.dumps({"number": number, **await listener.answer(asked)}).encode() + b"\n")
        out.flush()

    async with running(server):
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print("ready", flush=True)
        while line := await reader.readline():
            task = asyncio.ensure_future(answer(json.loads(line)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
