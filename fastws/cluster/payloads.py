"""What nodes say to each other, and what stands in logs, as bytes."""

from typing import Any, NamedTuple, TypeAlias

import orjson

__all__ = ["Payload", "Relayed", "message_of", "packed", "payload_of", "unpacked"]

#: A message: ``t`` or ``b`` for text or binary, then its bytes.
Payload: TypeAlias = bytes

TEXT, BINARY = b"t", b"b"
NODE_ID_SIZE = 10
LENGTH_SIZE = 4


def payload_of(message: Any) -> Payload:
    """Returns a message in the form that is stored and relayed; raises TypeError for what JSON does not have."""
    if isinstance(message, str):
        return TEXT + message.encode()
    if isinstance(message, bytes | bytearray | memoryview):
        return BINARY + bytes(message)
    return TEXT + orjson.dumps(message)


def message_of(payload: Payload) -> str | bytes:
    """Returns the message of a payload."""
    return payload[1:].decode() if payload[:1] == TEXT else payload[1:]


class Relayed(NamedTuple):
    """A message from another node: its sender, for whom it is (None: everybody), and what it is."""

    node: str
    about: dict[str, Any] | None
    payload: Payload


def packed(node: str, payload: Payload, about: dict[str, Any] | None = None) -> bytes:
    """Returns a message for other nodes; ``about`` is JSON."""
    head = b"" if about is None else orjson.dumps(about)
    return b"%s%s%s%s" % (node.encode(), len(head).to_bytes(LENGTH_SIZE), head, payload)


def unpacked(data: bytes) -> Relayed:
    """Returns what `packed` made; raises ValueError for anything else."""
    begin = NODE_ID_SIZE + LENGTH_SIZE
    end = begin + int.from_bytes(data[NODE_ID_SIZE:begin])
    if len(data) <= end:
        raise ValueError("this is not from a node of ours")
    about = orjson.loads(data[begin:end]) if end > begin else None
    return Relayed(data[:NODE_ID_SIZE].decode(), about, data[end:])
