"""What workers and their hub say to each other: frames of ``u32 length of body, u8 operation, u32 number, body``."""

import asyncio
import contextlib
import struct
from functools import lru_cache
from typing import Any, NamedTuple, cast

from msgspec import msgpack

from ..logs import History, Latest, Position
from .base import Beat, LogName, NodeKey, Read, Record, Subject, UserName

__all__ = [
    "ANSWER",
    "BEGUN",
    "CALLS",
    "FAILED",
    "FREE",
    "GONE",
    "HEAD",
    "LOST",
    "MESSAGE",
    "RECORDS",
    "Call",
    "Link",
    "Place",
    "begun_of",
    "frame",
    "log_key",
    "log_of",
    "node_of",
    "place_of",
    "records_of",
    "subject_key",
]

HEAD = struct.Struct("<IBI")
WRITE_AT = 256 * 1024  # bytes that are written before the turn of the loop is over
MANY = 1 << 16  # names that are remembered in the form in which they are sent

# The operations; `number` is the length of the name that the body begins with, of MESSAGE, RECORDS and BEGUN; that of
# the call, of ANSWER and FAILED; that of messages, of LOST. Further operations are the calls.
MESSAGE, RECORDS, BEGUN, ANSWER, FAILED, GONE, LOST, FIRST_CALL = range(8)
FREE = 0  # number of a call that nobody wants an answer to


class Place(NamedTuple):
    """A `LogName` in the form in which it is sent."""

    endpoint: str
    name: str
    has_keys: bool
    size: int
    ttl: float


class Call(NamedTuple):
    """Something that a worker asks of the hub."""

    operation: int
    name: str
    arguments: msgpack.Decoder[Any]
    result: msgpack.Decoder[Any]


def _calls(**types: tuple[Any, Any]) -> dict[str, Call]:
    return {
        name: Call(number, name, msgpack.Decoder(arguments), msgpack.Decoder(result))
        for number, (name, (arguments, result)) in enumerate(types.items(), FIRST_CALL)
    }


CALLS = _calls(
    hello=(tuple[NodeKey], None),
    rename=(tuple[NodeKey], None),
    listen=(tuple[list[bytes]], None),
    ignore=(tuple[list[bytes]], None),
    follow=(tuple[list[Place]], None),
    unfollow=(tuple[list[Place]], None),
    append=(tuple[Place, bytes, str | None, bool, str | None], Position),
    read=(tuple[Place, Position | None, int], Read),
    snapshot=(tuple[Place], Read),
    tops=(tuple[list[Place]], list[Position]),
    broken=(tuple[Place, Position], Position),
    clear=(tuple[Place], Position),
    claim=(tuple[list[UserName]], list[list[NodeKey]]),
    release=(tuple[list[UserName], NodeKey | None], list[list[NodeKey]]),
    find=(tuple[list[UserName]], list[list[NodeKey]]),
    holdings=(tuple[NodeKey], list[UserName]),
    route=(tuple[list[UserName], bytes], None),
    beat=(tuple[bytes], Beat),
    bury=(tuple[NodeKey, int], list[NodeKey]),
    buried=(tuple[NodeKey], None),
    leave=(tuple[()], None),
)

records_of = msgpack.Decoder(tuple[Position, list[Record]]).decode
begun_of = msgpack.Decoder(tuple[Position, str]).decode
node_of = msgpack.Decoder(NodeKey).decode


def frame(operation: int, number: int, body: bytes) -> bytes:
    """Returns a whole frame."""
    return HEAD.pack(len(body), operation, number) + body


@lru_cache(MANY)
def subject_key(subject: Subject) -> bytes:
    """Returns a subject in the form in which it is sent."""
    return "\0".join(subject).encode()


def log_key(endpoint: str, name: str) -> bytes:
    """Returns what the frames of a log begin with."""
    return f"{endpoint}\0{name}".encode()


@lru_cache(MANY)
def place_of(log: LogName) -> Place:
    """Returns a log in the form in which it is sent."""
    return Place(log.endpoint, log.name, log.has_keys, log.keep.size, log.keep.ttl)


@lru_cache(MANY)
def log_of(place: Place) -> LogName:
    """Returns the log that was sent."""
    keep = Latest(place.ttl, place.size) if place.has_keys else History(place.size, place.ttl)
    return LogName(place.endpoint, place.name, keep)


class Link(asyncio.Protocol):
    """One end of a socket pair: what one turn of the loop puts in goes out with one write."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: list[bytes] = []
        self._size = 0
        self._rest = bytearray()
        self.is_full = False
        """Whether more bytes than the limit wait for the other end to read them."""
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()

    def take(self, data: bytes) -> int:
        """Take whole frames off the beginning. Returns how many bytes they were."""
        raise NotImplementedError

    def put(self, whole: bytes) -> None:
        """Send a frame, whatever waits already."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self.flush)
        self._frames.append(whole)
        self._size += len(whole)
        if self._size > WRITE_AT:
            self.flush()

    def flush(self) -> None:
        """Write what was put in."""
        if self._frames and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._frames))
        self._frames.clear()
        self._size = 0

    async def close(self, timeout: float) -> None:
        """Write the rest, for at most so many seconds, and close."""
        self.flush()
        transport = self._transport
        if transport is not None:
            transport.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), timeout)
            transport.abort()
            await self._closed.wait()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(self._limit)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._closed.set()

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            if len(self._rest) < HEAD.size or len(self._rest) < HEAD.size + HEAD.unpack_from(self._rest)[0]:
                return
            data = bytes(self._rest)
            self._rest.clear()
        self._rest += data[self.take(data) :]
