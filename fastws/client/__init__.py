"""The client of fastws.v1 for Python, as fastws.js is for browsers::

    async with connect("wss://example.org/ws", token=fetch_token) as ws, ws.channel("cars") as cars:
        await cars.publish({"text": "hi"})
        async for message in cars:
            print(message.user, message.message)

A connection comes back by itself, to all of its channels. docs/protocol.md says what goes over the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ssl import SSLContext

from .channel import Channel
from .connection import Connection, Token
from .errors import ChannelError, ConnectionClosed, ConnectionRefused
from .events import Member, Message, Subscribed
from .talk import State

__all__ = [
    "Channel",
    "ChannelError",
    "Connection",
    "ConnectionClosed",
    "ConnectionRefused",
    "Member",
    "Message",
    "State",
    "Subscribed",
    "connect",
]


def connect(
    url: str,
    *,
    token: Token = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    queue: bool = False,
    retry: tuple[float, float] = (0.5, 20),
    timeout: float = 20,
    ssl: SSLContext | None = None,
    max_message_size: int = 64 * 1024 * 1024,
) -> Connection:
    """Returns a connection, which opens in an `async with` and closes at its end.

    `token` is one, or what returns one (awaitable or not): it is called before each attempt, and before the token is
    over. What may pass is tried again, for `timeout` seconds at the beginning (then TimeoutError) and forever
    afterwards, at random times within `retry`, the least and the most seconds, until the server says its own. What may
    not pass raises ConnectionRefused (with the status of HTTP) or ConnectionClosed (with the close code). `queue`:
    whether what is sent without a connection waits for the next one (at most 100), rather than raise ChannelError.
    `max_message_size` is in bytes.
    """
    return Connection(
        url,
        token=token,
        headers=headers,
        queue=queue,
        retry=retry,
        timeout=timeout,
        ssl=ssl,
        max_message_size=max_message_size,
    )
