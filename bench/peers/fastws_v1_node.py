"""A node of fastws that speaks fastws.v1, with channels 0 to 99 that keep their messages."""

import asyncio

import uvloop

from bench.peers.common import ready
from bench.peers.saying import arguments, obey
from fastws import History, Server
from fastws.access.rules import ChannelRule, Rules
from fastws.v1.listener import ChannelListener

CHANNELS = 100


async def main(options):
    rules = Rules([ChannelRule(pattern="*", subscribe="anyone")])
    server = Server(port=options.port, backplane=options.store, ping_interval=0)
    channels = server.endpoint("/ws", ChannelListener(rules), logs={"*": History(size=1_000)})
    async with server:
        ready(server.port)
        await obey(channels.broadcast, CHANNELS)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
