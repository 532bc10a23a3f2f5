"""Hostile frames, according to RFC 6455 5 to 8, sent after a valid handshake to a server that echoes.

The answer is everything that the server sends up to its own end, byte for byte.
"""

import struct

from ..lib.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from . import MAX_MESSAGE_SIZE


def says(opcode: int, payload: bytes) -> bytes:
    """A frame from the server."""
    return frame(opcode, payload, mask=None)


def closed(code: int, reason: bytes = b"") -> bytes:
    """The server's Close; its answer to a valid one has no reason."""
    return says(CLOSE, struct.pack("!H", code) + reason)


UNMASKED = closed(1002, b"frame is not masked")
RESERVED = closed(1002, b"reserved bits are set")
OPCODE = closed(1002, b"reserved opcode")
CONTROL = closed(1002, b"control frame is fragmented or longer than 125 bytes")
LENGTH = closed(1002, b"payload length is not in its shortest form or exceeds 2^63")
NO_MESSAGE = closed(1002, b"continuation frame without a message")
INTERLEAVED = closed(1002, b"new message before the previous one ended")
TOO_LARGE = closed(1009, b"message exceeds %d bytes" % MAX_MESSAGE_SIZE)
NOT_UTF8 = closed(1007, b"text is not UTF-8")
HALF_CODE = closed(1002, b"Close frame with an incomplete code")
REASON = closed(1007, b"close reason is not UTF-8")

END = close_frame(1000)
ENDED = closed(1000)

# name: (bytes, answer)
FRAMES = {
    # masks (5.1)
    "text without a mask": (frame(TEXT, b"x", mask=None), UNMASKED),
    "empty text without a mask": (frame(TEXT, b"", mask=None), UNMASKED),
    "70,000 bytes without a mask": (frame(BINARY, b"x" * 70_000, mask=None), UNMASKED),
    "a continuation without a mask": (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", mask=None), UNMASKED),
    "a ping without a mask": (frame(PING, b"x", mask=None), UNMASKED),
    "a pong without a mask": (frame(PONG, b"x", mask=None), UNMASKED),
    "a Close without a mask": (frame(CLOSE, b"\x03\xe8", mask=None), UNMASKED),
    "an empty Close without a mask": (frame(CLOSE, mask=None), UNMASKED),
    # reserved bits and opcodes (5.2)
    **{f"text with bits {rsv:03b}": (frame(TEXT, b"x", rsv=rsv), RESERVED) for rsv in range(1, 8)},
    **{f"binary with bits {rsv:03b}": (frame(BINARY, b"x", rsv=rsv), RESERVED) for rsv in (1, 2, 4)},
    **{f"a ping with bits {rsv:03b}": (frame(PING, b"x", rsv=rsv), RESERVED) for rsv in (1, 2, 4)},
    **{f"a pong with bits {rsv:03b}": (frame(PONG, b"x", rsv=rsv), RESERVED) for rsv in (1, 2, 4)},
    **{f"a Close with bits {rsv:03b}": (frame(CLOSE, b"\x03\xe8", rsv=rsv), RESERVED) for rsv in (1, 2, 4)},
    "a continuation with bits": (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", rsv=4), RESERVED),
    **{f"opcode {opcode:#x}": (frame(opcode, b"x"), OPCODE) for opcode in (*range(0x3, 0x8), *range(0xB, 0x10))},
    "opcode 0x3 in fragments": (frame(0x3, b"x", fin=False), OPCODE),
    "opcode 0x3 between fragments": (frame(TEXT, b"x", fin=False) + frame(0x3, b"x"), OPCODE),
    # control frames (5.5)
    "a ping in two fragments": (frame(PING, b"x", fin=False) + frame(CONTINUATION, b"x"), CONTROL),
    "a pong in two fragments": (frame(PONG, b"x", fin=False) + frame(CONTINUATION, b"x"), CONTROL),
    "a Close in two fragments": (frame(CLOSE, b"\x03", fin=False) + frame(CONTINUATION, b"\xe8"), CONTROL),
    "a ping in a fragment between fragments": (frame(TEXT, b"x", fin=False) + frame(PING, fin=False), CONTROL),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), CONTROL),
    "a pong of 126 bytes": (frame(PONG, b"x" * 126), CONTROL),
    "a Close of 126 bytes": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), CONTROL),
    "a ping of 65,536 bytes": (frame(PING, b"x" * 65_536), CONTROL),
    "a ping that announces 2^40 bytes": (frame(PING, announced=1 << 40), CONTROL),
    "a ping of 5 bytes with a length of 16 bits": (frame(PING, b"hello", length_bits=16), CONTROL),
    "a Close with a length of 64 bits": (frame(CLOSE, b"\x03\xe8", length_bits=64), CONTROL),
    # lengths (5.2)
    "0 bytes in 16 bits": (frame(TEXT, b"", length_bits=16), LENGTH),
    "125 bytes in 16 bits": (frame(TEXT, b"x" * 125, length_bits=16), LENGTH),
    "0 bytes in 64 bits": (frame(TEXT, b"", length_bits=64), LENGTH),
    "125 bytes in 64 bits": (frame(TEXT, b"x" * 125, length_bits=64), LENGTH),
    "126 bytes in 64 bits": (frame(BINARY, b"x" * 126, length_bits=64), LENGTH),
    "65,535 bytes in 64 bits": (frame(TEXT, b"x" * 65_535, length_bits=64), LENGTH),
    "a continuation in too many bits": (
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", length_bits=16),
        LENGTH,
    ),
    "2^63 bytes with nothing behind": (frame(TEXT, announced=1 << 63), LENGTH),
    "2^63 + 1 bytes": (frame(BINARY, b"x", announced=(1 << 63) + 1), LENGTH),
    "2^64 - 1 bytes": (frame(BINARY, announced=(1 << 64) - 1), LENGTH),
    "2^63 - 1 bytes with nothing behind": (frame(TEXT, announced=(1 << 63) - 1), TOO_LARGE),
    "2^63 - 1 bytes behind a fragment": (
        frame(TEXT, b"x" * 1000, fin=False) + frame(CONTINUATION, announced=(1 << 63) - 1),
        TOO_LARGE,
    ),
    "2^32 bytes with nothing behind": (frame(BINARY, announced=1 << 32), TOO_LARGE),
    "2^32 - 1 bytes with nothing behind": (frame(BINARY, announced=(1 << 32) - 1), TOO_LARGE),
    "2^31 bytes with nothing behind": (frame(BINARY, announced=1 << 31), TOO_LARGE),
    # max_message_size
    "a message of one byte too many": (frame(BINARY, b"x" * 1001), TOO_LARGE),
    "text of too many bytes, if not characters": (frame(TEXT, "é".encode() * 501), TOO_LARGE),
    "one byte too many, announced": (frame(BINARY, announced=1001), TOO_LARGE),
    "a fragment of one byte too many": (frame(BINARY, b"x" * 1001, fin=False), TOO_LARGE),
    "two fragments of one byte too many": (
        frame(BINARY, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401),
        TOO_LARGE,
    ),
    "tiny fragments of one byte too many": (
        frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 1000,
        TOO_LARGE,
    ),
    "a last fragment that announces too much": (
        frame(BINARY, b"x" * 1000, fin=False) + frame(PING, b"p") + frame(CONTINUATION, announced=1),
        says(PONG, b"p") + TOO_LARGE,
    ),
    # fragments (5.4)
    "a continuation of nothing": (frame(CONTINUATION, b"x"), NO_MESSAGE),
    "a first continuation of nothing": (frame(CONTINUATION, b"x", fin=False), NO_MESSAGE),
    "an empty continuation of nothing": (frame(CONTINUATION), NO_MESSAGE),
    "a continuation behind a message": (frame(TEXT, b"x") + frame(CONTINUATION, b"x"), says(TEXT, b"x") + NO_MESSAGE),
    "a continuation behind the last": (
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y") + frame(CONTINUATION, b"z"),
        says(TEXT, b"xy") + NO_MESSAGE,
    ),
    "a continuation behind a ping": (frame(PING, b"p") + frame(CONTINUATION, b"x"), says(PONG, b"p") + NO_MESSAGE),
    "text inside text": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), INTERLEAVED),
    "binary inside text": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"x"), INTERLEAVED),
    "text inside binary": (frame(BINARY, b"x", fin=False) + frame(TEXT, b"x", fin=False), INTERLEAVED),
    "empty text inside empty text": (frame(TEXT, fin=False) + frame(TEXT), INTERLEAVED),
    "text behind two fragments": (
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) + frame(TEXT, b"x"),
        INTERLEAVED,
    ),
    # Close (5.5.1, 7.4)
    "a Close of one byte": (frame(CLOSE, b"\x03"), HALF_CODE),
    **{
        f"a Close with code {code}": (close_frame(code), closed(1002, b"close code %d must not be sent" % code))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a Close whose reason is no UTF-8": (close_frame(1000, b"\xff"), REASON),
    "a Close whose reason ends in half a character": (close_frame(1000, b"caf\xc3"), REASON),
    "a Close whose reason has a surrogate": (close_frame(1000, b"\xed\xa0\x80"), REASON),
    "a Close whose reason is overlong": (close_frame(1000, b"x" * 121 + b"\xc0\xaf"), REASON),
    "a Close with a bad code and a bad reason": (
        close_frame(1005, b"\xff"),
        closed(1002, b"close code 1005 must not be sent"),
    ),
    "an empty Close": (close_frame(None), says(CLOSE, b"")),
    "a Close with the longest reason": (close_frame(1001, b"x" * 123), closed(1001)),
    "a Close between fragments": (frame(TEXT, b"x", fin=False) + close_frame(1001), closed(1001)),
    # data after Close is not read (5.5.1)
    "text behind a Close": (END + frame(TEXT, b"late"), ENDED),
    "a ping behind a Close": (END + frame(PING, b"late"), ENDED),
    "a second Close": (END + close_frame(1001), ENDED),
    "a bad frame behind a Close": (END + frame(0x3, b"x", mask=None), ENDED),
    "1 MiB behind a Close": (END + bytes(1 << 20), ENDED),
    "the rest of a message behind a Close": (frame(TEXT, b"x", fin=False) + END + frame(CONTINUATION, b"y"), ENDED),
    "1 MiB behind a bad frame": (frame(0x3) + bytes(1 << 20), OPCODE),
    # another protocol after the handshake
    "a second handshake": (b"GET /ws/bikes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", RESERVED),
    "a TLS ClientHello": (b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + bytes(240), RESERVED),
    "zeros": (bytes(1000), UNMASKED),
    "0xff without end": (b"\xff" * 1000, RESERVED),
    # allowed but unusual: each ends with its own Close
    "pongs that nobody asked for": (frame(PONG, b"x") + frame(PONG) + END, ENDED),
    "empty messages": (frame(TEXT) + frame(BINARY) + END, says(TEXT, b"") + says(BINARY, b"") + ENDED),
    "empty fragments": (
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 5 + frame(CONTINUATION) + END,
        says(TEXT, b"") + ENDED,
    ),
    "pings between fragments": (
        frame(TEXT, b"a", fin=False)
        + frame(PING, b"1")
        + frame(CONTINUATION, b"b", fin=False)
        + frame(PING, b"x" * 125)
        + frame(CONTINUATION, b"c")
        + END,
        says(PONG, b"1") + says(PONG, b"x" * 125) + says(TEXT, b"abc") + ENDED,
    ),
    "a mask of zeros": (frame(TEXT, b"x", mask=b"\0\0\0\0") + END, says(TEXT, b"x") + ENDED),
    "as large as may be": (
        frame(BINARY, b"x" * 1000) + frame(BINARY, b"x" * 999, fin=False) + frame(CONTINUATION, b"x") + END,
        says(BINARY, b"x" * 1000) * 2 + ENDED,
    ),
}

# Half close: the peer stops sending, but still reads. name: (bytes, answer)
CUT_SHORT = {
    "nothing": (b"", b""),
    "one byte of a header": (b"\x81", b""),
    "a header without its mask": (frame(TEXT, b"x")[:3], b""),
    "half a payload": (frame(TEXT, b"hello")[:-2], b""),
    "a ping and a header": (frame(PING, b"p") + frame(TEXT, announced=999), says(PONG, b"p")),
    "a message without its end": (frame(TEXT, b"x", fin=False), b""),
    "half a Close": (END[:-1], b""),
    "a ping": (frame(PING, b"p"), says(PONG, b"p")),
    "a message": (frame(TEXT, b"x"), says(TEXT, b"x")),
    "a message and half of another": (frame(TEXT, b"x") + frame(TEXT, b"y")[:-1], says(TEXT, b"x")),
    "a Close": (END, ENDED),
    "a bad frame": (frame(0x3), OPCODE),
    "a message and a bad frame": (frame(TEXT, b"x") + frame(0x3), says(TEXT, b"x") + OPCODE),
}

# Bytes that are not UTF-8 (RFC 3629), and whether that shows before the message ends.
NO_TEXTS = {
    "a lone continuation byte": (b"\x80", True),
    "the last continuation byte": (b"\xbf", True),
    "a lone lead of two": (b"\xc3", False),
    "a lone lead of three": (b"\xe2", False),
    "a lone lead of four": (b"\xf0", False),
    "an overlong slash": (b"\xc0\xaf", True),
    "an overlong NUL": (b"\xc0\x80", True),
    "an overlong of two, the largest": (b"\xc1\xbf", True),
    "an overlong of three": (b"\xe0\x80\xaf", True),
    "an overlong of three, the largest": (b"\xe0\x9f\xbf", True),
    "an overlong of four": (b"\xf0\x82\x82\xac", True),
    "an overlong of four, the largest": (b"\xf0\x8f\xbf\xbf", True),
    "a high surrogate": (b"\xed\xa0\x80", True),
    "a low surrogate": (b"\xed\xbf\xbf", True),
    "a surrogate pair": (b"\xed\xa0\xbd\xed\xb2\xa9", True),
    "past the last code point": (b"\xf4\x90\x80\x80", True),
    "far past the last code point": (b"\xf5\x80\x80\x80", True),
    "a form of five": (b"\xf8\x88\x80\x80\x80", True),
    "a form of six": (b"\xfc\x84\x80\x80\x80\x80", True),
    "0xfe": (b"\xfe", True),
    "0xff": (b"\xff", True),
    "cut short after two of three": (b"\xe2\x82", False),
    "cut short after two of four": (b"\xf0\x9f", False),
    "cut short after three of four": (b"\xf0\x9f\x9a", False),
    "cut short by a letter": (b"\xe2\x82x", True),
    "cut short by another lead": (b"\xc3\xc3\xa9", True),
    "one continuation byte too many": (b"\xc3\xa9\xa9", True),
}
