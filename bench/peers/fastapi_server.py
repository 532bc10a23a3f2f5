"""FastAPI with a loop of `send_bytes`, as in its documentation, or with `--channels` fastws' fan-out; on any server."""

import argparse
import asyncio

import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.peers.common import BACKLOG, MAX_MESSAGE_BYTES, Members, ready
from fastws import Server
from fastws.asgi import channels

app = FastAPI()
members = Members()


@app.websocket("/echo")
async def echo(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(await websocket.receive_bytes())
    except WebSocketDisconnect:
        pass


async def loop(websocket: WebSocket, channel: str):
    await websocket.accept()
    receivers = members.join(f"/ws/{channel}", websocket)
    try:
        while True:
            message = await websocket.receive_bytes()
            for member in list(receivers(message)):
                await member.send_bytes(message)
    except WebSocketDisconnect:
        pass
    finally:
        members.leave(websocket)


async def broadcast(websocket: WebSocket, channel: str):
    await websocket.accept()
    room = channels(websocket)
    room.subscribe(channel)
    try:
        while True:
            room.broadcast(channel, await websocket.receive_bytes())
    except WebSocketDisconnect:
        pass


async def on_fastws(options):
    server = Server(
        port=options.port,
        http=app,
        max_message_size=MAX_MESSAGE_BYTES,
        max_backlog=1 << 30,
        ping_interval=0,
        flush_threads=options.flush_threads,
    )
    async with server:
        ready(options.port)
        await asyncio.Event().wait()


class Uvicorn(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        ready(self.config.port)


async def on_uvicorn(options):
    config = uvicorn.Config(
        app,
        port=options.port,
        http="httptools",
        ws=options.server,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        backlog=BACKLOG,
        log_level="error",
    )
    await Uvicorn(config).serve()


async def on_granian(options):
    from granian.constants import Interfaces
    from granian.server.embed import Server as Granian

    server = Granian(
        app, port=options.port, interface=Interfaces.ASGI, websockets=True, backlog=BACKLOG, log_enabled=False
    )
    serving = asyncio.create_task(server.serve())
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", options.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            ready(options.port)
            await serving


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--flush-threads", type=int, default=1, help="used only by fastws")
    parser.add_argument("--channels", action="store_true")
    options = parser.parse_args()
    app.websocket("/ws/{channel}")(broadcast if options.channels else loop)
    serve = {"fastws": on_fastws, "granian": on_granian}.get(options.server, on_uvicorn)
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
