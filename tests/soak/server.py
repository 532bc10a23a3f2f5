"""The server of the soak test, in a separate process. It prints its port, then what it holds for each line of input."""

import asyncio
import collections
import gc
import itertools
import logging
import os
import socket
import sys
import threading

import orjson
import uvloop

from fastws import Listener, Server, WebSocket

from ..lib.support import resident

POLICIES = ["close", "drop_oldest", "drop_newest"]
OPTIONS = {
    "max_message_size": 64 << 10,
    "max_header_size": 4 << 10,
    "max_backlog": 64 << 10,
    "max_arena": 16 << 20,
    "handshake_timeout": 10,
    "ping_interval": 5,
    "ping_timeout": 10,
    "close_timeout": 3,
    "flush_threads": 2,
}
TICK = 1.0  # seconds
FLOOD = bytes(16 << 10)  # eight per tick fill up stalled readers
SEND_BUFFER = 16 << 10  # of the kernel's buffers: by default they would hold megabytes each


class Talk(Listener):
    """Numbers the messages in each channel, and tells each member its first and last number."""

    def __init__(self):
        self.numbers = collections.Counter()
        self.ticks = 0

    def on_handshake(self, request):
        request.user = request.query.get("user")

    def on_open(self, ws):
        ws.subscribe("all")

    def on_subscribe(self, ws, channel, subscribers):
        ws.send(f"from {channel} {self.numbers[channel]}")

    def on_channel_close(self, channel):
        del self.numbers[channel]

    def on_message(self, ws, message):
        match message.split(" ", 3) if isinstance(message, str) else ():
            case ["say", channel, said, text] if channel in ws.channels:
                self.say(ws.manager, channel, f"{ws.user} {said} {text}")
                ws.manager.send_to_user(ws.user, f"heard {said}")
            case ["leave"]:
                for channel in ws.channels:
                    ws.send(f"till {channel} {self.numbers[channel]}")
                    ws.unsubscribe(channel)

    def say(self, manager, channel, what):
        self.numbers[channel] += 1
        manager.broadcast(channel, f"say {channel} {self.numbers[channel]} {what}")

    def tick(self, manager):
        self.ticks += 1
        self.say(manager, "all", f"server {self.ticks} tick")
        for _ in range(8):
            manager.broadcast("flood", FLOOD)


class TalkLater(Talk):
    """The same with an async handler, for which messages wait."""

    async def on_message(self, ws, message):
        await asyncio.sleep(0)
        super().on_message(ws, message)


class Errors(logging.Handler):
    """Collects what the server logs as errors."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


def holds(server, errors, objects):
    """What the server holds; objects only on request, since counting them takes a while."""
    if objects:
        gc.collect()
    managers = server.endpoints.values()
    return {
        "rss": resident(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "counters": server._reactor.counters,
        "channels": sum(len(manager.channels) for manager in managers),
        "users": sum(len(manager.users) for manager in managers),
        "tasks": len(server._runner.tasks),
        "websockets": sum(isinstance(o, WebSocket) for o in gc.get_objects()) if objects else None,
        "stats": [manager.stats for manager in managers],
        "errors": errors.lines[:20],
    }


async def tick(server):
    while True:
        for manager in server.endpoints.values():
            manager.listener.tick(manager)
        await asyncio.sleep(TICK)


def shout(server, stopped):
    """Broadcasts from another thread."""
    for number in itertools.count(1):
        if stopped.wait(TICK):
            return
        for manager in server.endpoints.values():
            manager.broadcast_threadsafe("all", f"thread {number}")


async def lines():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        yield line


async def main():
    logger, errors = logging.getLogger("fastws"), Errors()
    logger.addHandler(errors)
    logger.propagate = False
    server = Server(port=0, **OPTIONS)
    for policy in POLICIES:
        listener = TalkLater() if policy == "drop_newest" else Talk()
        server.endpoint(f"/{policy}/{{channel}}", listener, overflow=policy)
    stopped = threading.Event()
    async with server, asyncio.TaskGroup() as group:
        for sock in server._sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted sockets inherit it
        ticking = group.create_task(tick(server))
        shouting = group.create_task(asyncio.to_thread(shout, server, stopped))
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        async for line in lines():
            told = orjson.dumps(holds(server, errors, line == b"objects\n"))
            sys.stdout.write(told.decode() + "\n")
            sys.stdout.flush()
        ticking.cancel()
        stopped.set()
        await shouting


if __name__ == "__main__":
    uvloop.run(main())
