"""The chat of Quart's tutorial, and what its documentation shows of accepting, closing and refusing."""

import asyncio
from collections.abc import AsyncGenerator

from quart import Quart, abort, websocket

app = Quart(__name__)


class Broker:
    def __init__(self) -> None:
        self.connections: set[asyncio.Queue[str]] = set()

    async def publish(self, message: str) -> None:
        for connection in self.connections:
            await connection.put(message)

    async def subscribe(self) -> AsyncGenerator[str, None]:
        connection: asyncio.Queue[str] = asyncio.Queue()
        self.connections.add(connection)
        try:
            while True:
                yield await connection.get()
        finally:
            self.connections.remove(connection)


broker = Broker()


@app.get("/")
async def index():
    return {"members": len(broker.connections)}


async def _receive() -> None:
    while True:
        message = await websocket.receive()
        await broker.publish(message)


@app.websocket("/ws")
async def ws() -> None:
    try:
        task = asyncio.ensure_future(_receive())
        async for message in broker.subscribe():
            await websocket.send(message)
    finally:
        task.cancel()
        await task


@app.websocket("/both")
async def both() -> None:
    """A producer and a consumer at once."""

    async def sending():
        for number in range(3):
            await websocket.send_json({"number": number})

    async def receiving():
        return [await websocket.receive_json() for _ in range(3)]

    await websocket.accept(headers={"x-hello": "world"}, subprotocol="v2")
    _, got = await asyncio.gather(sending(), receiving())
    await websocket.send_json(got)
    await websocket.close(4000, "enough")


@app.websocket("/private")
async def private():
    auth = websocket.authorization
    if auth is None or auth.password != "secret":
        return "Authentication required", 401, {"WWW-Authenticate": 'Basic realm="chat"'}
    await websocket.send("come in")
    return None


@app.websocket("/aborted")
async def aborted():
    abort(403)
