"""One connection to a Redis server: commands one after the other, their replies in the same order."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import hiredis

from ...errors import ConfigurationError
from ..base import BackplaneError

__all__ = ["Address", "Away", "Credentials", "Link", "Refused", "connect", "pack"]


class Away(BackplaneError):
    """The connection is lost, or was never there."""


class Refused(BackplaneError):
    """Redis answered with an error; its first word says which."""

    @property
    def code(self) -> str:
        """Such as ``READONLY``."""
        return str(self).partition(" ")[0]


def pack(*command: Any) -> bytes:
    """Returns a command as it is sent."""
    packed: bytes = hiredis.pack_command(command)
    return packed


class Address(NamedTuple):
    """Where a server listens; one without a port is the path of a Unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Credentials:
    """What every connection begins with."""

    username: str = ""
    password: str = ""
    database: int = 0
    tls: ssl.SSLContext | None = None


class Link(asyncio.Protocol):
    """A connection. Whatever one turn of the loop has to say is one write."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.host = ""
        self.on_refused: Callable[[Refused], None] | None = None  # what was only told
        self._reader = hiredis.Reader(replyError=Refused)
        self._feed: Callable[[bytes], None] = self._replies
        self._waiting: deque[asyncio.Future[Any] | None] = deque()
        self._out: list[bytes] = []
        self._unsent = 0
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether anything can be said."""
        return self._transport is not None and not self.lost.done()

    @property
    def backlog(self) -> int:
        """Bytes that the server has not taken."""
        return self._unsent + (0 if self._transport is None else self._transport.get_write_buffer_size())

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        """Say a command; done with the reply. Raises Away if the connection is lost, Refused for an error."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.lost.done():
            reply.set_exception(Away(self.lost.result()))
        else:
            self._waiting.append(reply)
            self.write(pack(*command))
        return reply

    def tell(self, packed: bytes) -> None:
        """Say a command whose reply does not matter."""
        self._waiting.append(None)
        self.write(packed)

    def write(self, packed: bytes) -> None:
        """Send at the end of this turn of the loop."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(packed)
        self._unsent += len(packed)

    def hand_over(self, feed: Callable[[bytes], None]) -> None:
        """From now on whatever comes is somebody else's."""
        self._feed = feed

    def close(self, reason: str) -> None:
        """Give the connection up, with whatever was not answered."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._out.clear()
        self._unsent = 0
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            reply = self._waiting.popleft()
            if reply is not None and not reply.done():
                reply.set_exception(Away(reason))
                reply.exception()  # whoever waited may have gone

    async def gone(self) -> None:
        """Wait until nothing is left of a connection that was closed."""
        if self._transport is not None:
            await self._gone.wait()

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)
        if self.lost.done():
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._gone.set()
        self.close("the connection was closed" if exc is None else str(exc) or type(exc).__name__)

    def data_received(self, data: bytes) -> None:
        """Something has come; what no server sends ends the connection."""
        if self.lost.done():
            return
        try:
            self._feed(data)
        except (hiredis.HiredisError, ValueError) as error:
            self.close(str(error))

    def _replies(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            if not waiting:
                raise ValueError("Redis answered what nobody asked")
            asked = waiting.popleft()
            if asked is None:
                if isinstance(reply, Refused) and self.on_refused is not None:
                    self.on_refused(reply)
            elif not asked.done():
                if isinstance(reply, Refused):
                    asked.set_exception(reply)
                else:
                    asked.set_result(reply)

    def _flush(self) -> None:
        if not self._out or self._transport is None:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._unsent = 0
        self._transport.write(data)


async def connect(
    address: Address, credentials: Credentials, timeout: float, name: str = "fastws"
) -> tuple[Link, dict[str, Any]]:
    """Returns a connection that is logged in, and what the server says of itself.

    Raises ConfigurationError for a wrong password or a server that is too old; OSError, TimeoutError or a
    BackplaneError where there is none.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        if address.port:
            tls = credentials.tls
            host = address.host if tls else None
            _, link = await loop.create_connection(Link, address.host, address.port, ssl=tls, server_hostname=host)
        else:
            _, link = await loop.create_unix_connection(Link, address.host)
        link.host = address.host
        try:
            return link, await _log_in(link, credentials, name)
        except BaseException as error:
            link.close(str(error))
            await link.gone()
            raise


async def _log_in(link: Link, credentials: Credentials, name: str) -> dict[str, Any]:
    who = ["AUTH", credentials.username or "default", credentials.password] if credentials.password else []
    hello = link.ask("HELLO", "2", *who, "SETNAME", name)
    chosen = link.ask("SELECT", credentials.database) if credentials.database else None
    try:
        said = await hello
        if chosen is not None:
            await chosen
    except Refused as error:
        if chosen is not None:
            chosen.cancel()
        if error.code in ("WRONGPASS", "NOAUTH", "NOPERM") or "DB index" in str(error) or "AUTH" in str(error):
            raise ConfigurationError(f"Redis refuses to log in: {error}") from None
        if "unknown command" in str(error) or error.code == "NOPROTO":
            raise ConfigurationError("Redis is too old: 7.0 or later, or Valkey, is needed") from None
        raise
    return {key.decode(): value for key, value in zip(said[::2], said[1::2], strict=True) if isinstance(key, bytes)}
