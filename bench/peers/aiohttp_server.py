"""aiohttp on uvloop: a loop of `send_bytes`; no heartbeat."""

import asyncio
from functools import partial

import uvloop
from aiohttp import WSMsgType, web

from bench.peers.common import BACKLOG, MAX_MESSAGE_BYTES, Members, arguments, ready, tls_context

members = Members()


async def handle(compress, request):
    connection = web.WebSocketResponse(compress=compress, max_msg_size=MAX_MESSAGE_BYTES)
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


async def main(options):
    app = web.Application()
    app.router.add_get("/{path:.*}", partial(handle, options.compress))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = tls_context(options)
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=BACKLOG, ssl_context=context).start()
    ready(options.port)
    await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
