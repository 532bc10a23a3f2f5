"""Hostile compressed frames (RFC 7692), sent after compression was agreed on to a server that echoes without it."""

import random
import zlib

from ..lib.deflate import deflated, deflated_frame
from ..lib.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from . import MAX_MESSAGE_SIZE
from .frames import END, ENDED, INTERLEAVED, NOT_UTF8, RESERVED, TOO_LARGE, closed, says

DAMAGED = closed(1007, b"the compressed data are damaged")
HELLO = deflated(b"Hello")
LARGEST = b"ab" * (MAX_MESSAGE_SIZE // 2)
NOISE = random.Random(7).randbytes(MAX_MESSAGE_SIZE)


def whole(data: bytes, opcode: int = BINARY) -> bytes:
    return frame(opcode, data, rsv=4)


def pieces(data: bytes, size: int) -> bytes:
    """A compressed message in fragments of `size` bytes, with a pong behind each."""
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(
        frame(0 if number else BINARY, part, fin=number == len(parts) - 1, rsv=0 if number else 4) + frame(PONG)
        for number, part in enumerate(parts)
    )


# name: (bytes, answer)
COMPRESSED = {
    # RSV1 where it may not be (6)
    "a continuation with RSV1": (frame(TEXT, HELLO[:2], fin=False, rsv=4) + frame(CONTINUATION, rsv=4), RESERVED),
    "plain text, then RSV1": (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, HELLO, rsv=4), RESERVED),
    "a ping with RSV1": (frame(PING, HELLO, rsv=4), RESERVED),
    "a pong with RSV1": (frame(PONG, HELLO, rsv=4), RESERVED),
    "a Close with RSV1": (frame(CLOSE, b"\x03\xe8", rsv=4), RESERVED),
    **{f"text with bits {rsv:03b}": (frame(TEXT, HELLO, rsv=rsv), RESERVED) for rsv in (1, 2, 3, 5, 6, 7)},
    "an opcode with RSV1": (frame(0x3, HELLO, rsv=4), RESERVED),
    "two at once": (frame(TEXT, HELLO[:2], fin=False, rsv=4) + whole(HELLO), INTERLEAVED),
    # bad streams
    "nothing": (whole(b""), DAMAGED),
    "nothing in fragments": (frame(TEXT, fin=False, rsv=4) + frame(CONTINUATION), DAMAGED),
    "noise": (whole(b"\xff" + NOISE[:500]), DAMAGED),
    "plain text that says it is compressed": (whole(b"Hello, world", TEXT), DAMAGED),
    "zlib's header": (whole(zlib.compress(b"Hello")), DAMAGED),
    "gzip's header": (whole(zlib.compress(b"Hello", wbits=31)), DAMAGED),
    "a reserved kind of block": (whole(b"\x07\x00"), DAMAGED),
    "a stored block whose length is wrong": (whole(b"\x00\x05\x00\x00\x00Hello"), DAMAGED),
    "a stored block that goes on": (whole(b"\x00\xff\xff\x00\x00Hello"), DAMAGED),
    "a distance before the beginning": (whole(bytes.fromhex("4a04620000")), DAMAGED),
    "too many codes": (whole(b"\xfc\xff\xff\xff"), DAMAGED),
    "codes of length 0": (whole(b"\x04" + bytes(30)), DAMAGED),
    "the tail of a sync flush, twice": (whole(HELLO + b"\x00\x00\xff\xff\x00\x00\xff\xff"), DAMAGED),
    "dirt behind the end": (whole(bytes.fromhex("f348cdc9c90700") + b"\xff"), DAMAGED),
    **{f"cut short after {end} bytes": (whole(HELLO[:end]), DAMAGED) for end in range(len(HELLO))},
    # size
    "one byte too many": (deflated_frame(LARGEST + b"x", BINARY), TOO_LARGE),
    "a bomb": (deflated_frame(bytes(900_000), BINARY), TOO_LARGE),
    "a bomb in fragments": (pieces(deflated(bytes(900_000)), 100), TOO_LARGE),
    "a bomb of stored blocks": (whole(b"\x00\xff\x03\x00\xfc" + bytes(1023)), TOO_LARGE),
    "empty blocks without end": (whole(b"\x00\x00\x00\xff\xff" * 1000), TOO_LARGE),
    "a header that announces too much": (frame(BINARY, b"", rsv=4, announced=MAX_MESSAGE_SIZE * 2), TOO_LARGE),
    "text that is no UTF-8": (deflated_frame(b"caf\xc3"), NOT_UTF8),
    "text that is a surrogate": (deflated_frame(b"x" * 50 + b"\xed\xa0\x80"), NOT_UTF8),
    # allowed but unusual: each ends with its own Close
    "an empty message": (whole(b"\x00", TEXT) + END, says(TEXT, b"") + ENDED),
    "BFINAL": (whole(bytes.fromhex("f348cdc9c9070000"), TEXT) + END, says(TEXT, b"Hello") + ENDED),
    "BFINAL at the end": (whole(bytes.fromhex("f348cdc9c90700"), TEXT) + END, says(TEXT, b"Hello") + ENDED),
    "an empty message, and BFINAL": (whole(b"\x01", TEXT) + END, says(TEXT, b"") + ENDED),
    "several ends": (
        whole(bytes.fromhex("f348cdc9c90700") * 3 + b"\x00", TEXT) + END,
        says(TEXT, b"Hello" * 3) + ENDED,
    ),
    "stored": (whole(bytes.fromhex("000500faff48656c6c6f00"), TEXT) + END, says(TEXT, b"Hello") + ENDED),
    "empty blocks": (whole(b"\x00\x00\x00\xff\xff" * 100 + HELLO, TEXT) + END, says(TEXT, b"Hello") + ENDED),
    "as large as may be": (deflated_frame(LARGEST, BINARY) + END, says(BINARY, LARGEST) + ENDED),
    "larger when compressed": (deflated_frame(NOISE, BINARY, memory=1) + END, says(BINARY, NOISE) + ENDED),
    "byte by byte": (pieces(deflated(LARGEST), 1) + END, says(BINARY, LARGEST) + ENDED),
    "plain between compressed": (
        deflated_frame(b"one") + frame(TEXT, b"two") + deflated_frame(b"three") + END,
        says(TEXT, b"one") + says(TEXT, b"two") + says(TEXT, b"three") + ENDED,
    ),
    "half a message, then Close": (frame(TEXT, HELLO[:3], fin=False, rsv=4) + END, ENDED),
}
