"""What stands between a client and a server, and does what networks do."""

import asyncio
import contextlib
from typing import Self

CHUNK = 1 << 16


class Relay:
    """Passes on whatever comes to its port: `async with Relay(port) as relay`, then connect to ``relay.port``."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._cut_after: int | None = None  # bytes from the server
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Event()
        self._moving.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.reset()
        self._moving.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def reset(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Take connections and bytes, and pass nothing on."""
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()

    def cut_after(self, bytes: int) -> None:
        """Cut the connection on which so many more bytes have come from the server."""
        self._cut_after = bytes

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._moving.wait()
            there, onward = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(onward)
            try:
                await asyncio.wait(
                    [
                        asyncio.ensure_future(self._pass_on(reader, onward, is_server=False)),
                        asyncio.ensure_future(self._pass_on(there, writer, is_server=True)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                onward.transport.abort()
                self._writers.discard(onward)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_server: bool) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's, where the other side was cut
            while data := await reader.read(CHUNK):
                await self._moving.wait()
                if is_server and self._cut_after is not None:
                    data, self._cut_after = data[: self._cut_after], self._cut_after - len(data)
                    if self._cut_after <= 0:
                        self._cut_after = None
                        writer.write(data)
                        await writer.drain()
                        return
                writer.write(data)
                await writer.drain()
