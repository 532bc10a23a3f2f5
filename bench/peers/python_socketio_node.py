"""python-socketio on uvicorn and uvloop; with others by its AsyncRedisManager."""

import asyncio
from urllib.parse import parse_qs

import socketio
import uvicorn
import uvloop

from bench.peers.common import BACKLOG, ready
from bench.peers.saying import arguments, obey


async def main(options):
    manager = socketio.AsyncRedisManager(options.store) if options.store else None
    server = socketio.AsyncServer(async_mode="asgi", client_manager=manager, ping_interval=600, http_compression=False)

    @server.event
    async def connect(sid, environ):
        await server.enter_room(sid, parse_qs(environ["QUERY_STRING"])["channel"][0])

    def say(channel, text):
        return server.emit("message", text, room=channel)

    config = uvicorn.Config(
        socketio.ASGIApp(server),
        port=options.port,
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        backlog=BACKLOG,
        log_level="error",
    )
    serving = asyncio.ensure_future(uvicorn.Server(config).serve())
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", options.port)
            break
        except OSError:
            await asyncio.sleep(0.05)
    writer.close()
    ready(options.port)
    await obey(say)
    await serving


if __name__ == "__main__":
    uvloop.run(main(arguments()))
