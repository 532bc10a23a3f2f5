"""Starlette on uvicorn, uvloop, httptools and uvicorn's sans-I/O websockets protocol: a loop of `send_bytes`."""

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from bench.peers.common import BACKLOG, MAX_MESSAGE_BYTES, Members, arguments, ready

members = Members()


async def handle(connection):
    await connection.accept()
    receivers = members.join(connection.url.path, connection)
    try:
        while True:
            message = await connection.receive_bytes()
            if receivers is None:
                await connection.send_bytes(message)
                continue
            for member in list(receivers(message)):
                await member.send_bytes(message)
    except WebSocketDisconnect:
        pass
    finally:
        members.leave(connection)


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        ready(self.config.port)


if __name__ == "__main__":
    options = arguments()
    certificate, key = options.tls or (None, None)
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/{path:path}", handle)]),
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=options.compress,
        ws_ping_interval=None,
        backlog=BACKLOG,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="error",
    )
    Server(config).run()
