"""Django Channels' layers on uvloop, each member a loop of `receive` as a consumer's is; websockets carries it on.

Alone it is the layer in memory, with others that of channels_redis.
"""

import asyncio

import uvloop
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from bench.peers.common import BACKLOG, ready
from bench.peers.saying import arguments, obey

CAPACITY = 1_000_000  # of a member's queue: at the default of 100 messages are dropped


def layer_of(options):
    if options.store is None:
        return InMemoryChannelLayer(capacity=CAPACITY)
    if options.pubsub:
        return RedisPubSubChannelLayer(hosts=[options.store])
    return RedisChannelLayer(hosts=[options.store], capacity=CAPACITY)


async def main(options):
    layer = layer_of(options)

    async def handle(connection):
        group = "bench." + connection.request.path.rpartition("/")[2]
        channel = await layer.new_channel()
        await layer.group_add(group, channel)
        try:
            while True:
                await connection.send((await layer.receive(channel))["text"])
        except ConnectionClosed:
            await layer.group_discard(group, channel)

    def say(channel, text):
        return layer.group_send(f"bench.{channel}", {"type": "bench.message", "text": text})

    async with serve(handle, "127.0.0.1", options.port, compression=None, ping_interval=None, backlog=BACKLOG):
        ready(options.port)
        await obey(say)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
