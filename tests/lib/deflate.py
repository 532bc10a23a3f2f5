"""permessage-deflate from the client's side, by Python's zlib (RFC 7692 7.2)."""

import zlib

from .raw import TEXT, Frame, Raw, frame, request

TAIL = b"\x00\x00\xff\xff"
OFFER = "permessage-deflate"


def deflated(payload: bytes, *, level: int = 6, bits: int = 15, memory: int = 8) -> bytes:
    """A message as a client compresses it."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, memory)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert data.endswith(TAIL)
    return data[:-4]


def deflated_frame(payload: bytes, opcode: int = TEXT, **how: int) -> bytes:
    return frame(opcode, deflated(payload, **how), rsv=4)


def inflated(payload: bytes, bits: int = 15) -> bytes:
    """What the message was; a window of `bits` has to be enough for it."""
    decompressor = zlib.decompressobj(-bits)
    data = decompressor.decompress(payload + TAIL)
    assert decompressor.unused_data == b""
    return data


def message_in(got: Frame, bits: int = 15) -> bytes:
    """The payload of a whole message from the server, whether it is compressed or not."""
    assert got.fin
    assert not got.masked
    assert got.rsv in (0, 4)
    return inflated(got.payload, bits) if got.rsv else got.payload


async def compressing(url: str, target: str = "/ws/cars", offer: str = OFFER) -> Raw:
    """A raw connection that has agreed on compression."""
    raw = await Raw.open(url)
    await raw.send(upgrade(target, offer))
    response = await raw.response()
    assert response.status == 101
    assert response["Sec-WebSocket-Extensions"].startswith(OFFER)
    return raw


def upgrade(target: str, offer: str = OFFER) -> bytes:
    return request(target, extra=[("Sec-WebSocket-Extensions", offer)])


async def was_compressed(raw: Raw, text: str) -> bool:
    """Whether the next message, which has to be this one, came compressed."""
    got = await raw.frame()
    assert message_in(got).decode() == text
    return bool(got.rsv)
