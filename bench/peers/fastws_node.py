"""A node of fastws: members of a channel get what any node says to it."""

import asyncio

import uvloop

from bench.peers.common import ready
from bench.peers.saying import arguments, obey
from fastws import History, Server


async def main(options):
    server = Server(port=options.port, backplane=options.store, ping_interval=0)
    logs = {"*": History(size=1_000)} if options.keep else None
    channels = server.endpoint("/ws/{channel}", max_backlog=1 << 30, logs=logs)
    async with server:
        ready(server.port)
        await obey(channels.broadcast)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
