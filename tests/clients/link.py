"""A line between clients and a server, which a test can cut."""

import asyncio
import contextlib
from contextlib import asynccontextmanager


class Link:
    """`is_up`: whether newcomers get through; `rest`: bytes to clients after which the line breaks, None for never."""

    def __init__(self, port):
        self.is_up = True
        self.rest = None
        self._target = port
        self._writers = set()

    def cut(self):
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader, writer):
        if not self.is_up:
            writer.transport.abort()
            return
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, forth}
        try:
            await asyncio.gather(self._pass(reader, forth), self._pass(back, writer, is_counted=True))
        finally:
            self._writers -= {writer, forth}

    async def _pass(self, reader, writer, is_counted=False):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if is_counted and self.rest is not None:
                    data, self.rest = data[: self.rest], self.rest - len(data)
                writer.write(data)
                if self.rest is not None and self.rest <= 0:
                    self.rest = None
                    break
        self.cut()


@asynccontextmanager
async def linked(port):
    """Gives a link to a port of this machine; its `url` is that of fastws.v1."""
    link = Link(port)
    async with await asyncio.start_server(link._accept, "127.0.0.1", 0) as server:
        link.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        yield link
        link.is_up = False
        link.cut()
