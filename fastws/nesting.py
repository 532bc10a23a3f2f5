"""How deeply published JSON may be nested."""

from itertools import accumulate

__all__ = ["MOST_LEVELS", "nesting_fault"]

#: With the frames and requests around a message it stays below what the strictest of common parsers read by default:
#: 64 levels in .NET, 100 in Ruby, 128 in Rust's serde, 512 in PHP.
MOST_LEVELS = 60

STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one level down or, as a signed byte, up
OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def nesting_fault(encoded: bytes) -> str:
    """What is wrong with the nesting of valid JSON, "" where nothing is."""
    if encoded.count(b"[") + encoded.count(b"{") <= MOST_LEVELS:
        return ""  # nearly always, and it costs next to nothing
    if b"\\" in encoded:
        encoded = encoded.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(encoded.split(b'"')[::2])
    levels = accumulate(memoryview(outside_strings.translate(STEPS, OTHERS)).cast("b"))
    return f"it is nested more than {MOST_LEVELS} levels deep" if max(levels, default=0) > MOST_LEVELS else ""
