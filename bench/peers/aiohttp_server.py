"""aiohttp on uvloop: a loop of `send_bytes`; no compression, no heartbeat."""

import asyncio

import uvloop
from aiohttp import WSMsgType, web

from bench.peers.common import BACKLOG, MAX_MESSAGE_BYTES, Members, arguments, ready

members = Members()


async def handle(request):
    connection = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE_BYTES)
    await connection.prepare(request)
    receivers = members.join(request.path, connection)
    try:
        async for message in connection:
            if message.type is not WSMsgType.BINARY:
                continue
            if receivers is None:
                await connection.send_bytes(message.data)
                continue
            for member in list(receivers(message.data)):
                await member.send_bytes(message.data)
    finally:
        members.leave(connection)
    return connection


async def main(port):
    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    ready(port)
    await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments().port))
