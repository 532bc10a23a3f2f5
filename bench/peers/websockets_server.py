"""websockets on uvloop, with its own `broadcast`; no keepalive."""

import asyncio

import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from bench.peers.common import BACKLOG, MAX_MESSAGE_BYTES, Members, arguments, ready, tls_context

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


def extensions():
    """Its own choice of window and memory, at the fastest level."""
    settings = {"memLevel": 5, "level": 1}
    return [ServerPerMessageDeflateFactory(server_max_window_bits=12, compress_settings=settings)]


async def main(options):
    async with serve(
        handle,
        "127.0.0.1",
        options.port,
        compression=None,
        extensions=extensions() if options.compress else None,
        ping_interval=None,
        max_size=MAX_MESSAGE_BYTES,
        backlog=BACKLOG,
        ssl=tls_context(options),
    ):
        ready(options.port)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
