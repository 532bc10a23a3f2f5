"""websockets on uvloop, with its own `broadcast`; no compression, no keepalive."""

import asyncio

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

from bench.peers.common import BACKLOG, MAX_MESSAGE_BYTES, Members, arguments, ready

members = Members()


async def handle(connection):
    receivers = members.join(connection.request.path, connection)
    try:
        async for message in connection:
            if receivers is None:
                await connection.send(message)
            else:
                broadcast(receivers(message), message)
    except ConnectionClosed:
        pass
    finally:
        members.leave(connection)


async def main(port):
    options = {"compression": None, "ping_interval": None, "max_size": MAX_MESSAGE_BYTES, "backlog": BACKLOG}
    async with serve(handle, "127.0.0.1", port, **options):
        ready(port)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments().port))
