"""A ticker: your own task broadcasts to whoever connects to /ws/ticker/seconds."""

import asyncio
import time

from fastws import Listener, Server

server = Server()
ticker = server.endpoint("/ws/ticker/{channel}", Listener())


async def tick(seconds=1.0):
    while True:
        ticker.broadcast("seconds", {"time": time.time()})
        await asyncio.sleep(seconds)


async def main():
    async with server:
        await tick()


if __name__ == "__main__":
    asyncio.run(main())
