"""Shared helpers: listeners that record what happened, and the site that a test talks to."""

import asyncio
import base64
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import TimestampSigner

from fastws import ConnectionManager, Listener, Server
from fastws._core import Reactor

from .raw import TIMEOUT

CERTIFICATE = Path(__file__).parent / "localhost.pem"

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")


@dataclass
class Site:
    """A running server with one endpoint."""

    server: Server
    manager: ConnectionManager
    url: str  # ws://127.0.0.1:port


class Echo(Listener):
    """Sends every message back."""

    def on_message(self, ws, message):
        return message


class Recorder(Listener):
    """Records every call as (name, arguments...)."""

    def __init__(self):
        self.calls = []
        self.sockets = []
        self._changed = asyncio.Event()

    @property
    def names(self):
        return [call[0] for call in self.calls]

    def of(self, name):
        """The arguments of each call of `name`."""
        return [call[1:] for call in self.calls if call[0] == name]

    async def until(self, name, times=1):
        """Wait for `times` calls of `name`. Returns the arguments of the last one."""
        async with asyncio.timeout(TIMEOUT):
            while len(self.of(name)) < times:
                self._changed.clear()
                await self._changed.wait()
        return self.of(name)[times - 1]

    def note(self, *call):
        self.calls.append(call)
        self._changed.set()

    def on_handshake(self, request):
        self.note("on_handshake", request)

    def authorize(self, request, channel):
        self.note("authorize", channel)

    def on_open(self, ws):
        self.sockets.append(ws)
        self.note("on_open", ws)

    def on_message(self, ws, message):
        self.note("on_message", message)

    def on_close(self, ws, code, reason):
        self.note("on_close", code, reason)

    def on_error(self, ws, error):
        self.note("on_error", error)

    def on_subscribe(self, ws, channel, subscribers):
        self.note("on_subscribe", ws, channel, subscribers)

    def on_unsubscribe(self, ws, channel, subscribers):
        self.note("on_unsubscribe", ws, channel, subscribers)

    def on_channel_open(self, channel):
        self.note("on_channel_open", channel)

    def on_channel_close(self, channel):
        self.note("on_channel_close", channel)

    def on_user_online(self, user):
        self.note("on_user_online", user)

    def on_user_offline(self, user):
        self.note("on_user_offline", user)


class Named(Listener):
    """Users from the query string: /ws/cars?user=ann."""

    def on_handshake(self, request):
        request.user = request.query.get("user")


class Holding(Listener):
    """Blocks the drain until it is released."""

    def __init__(self):
        self.draining, self.release = asyncio.Event(), asyncio.Event()

    async def on_shutdown(self):
        self.draining.set()
        await self.release.wait()


def signed_cookie(values: dict[str, Any], secret: str | bytes, at: float | None = None) -> str:
    """A session cookie of Starlette's SessionMiddleware; `at` is the time of the signature, in seconds."""

    class Signer(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time() if at is None else at)

    return Signer(secret).sign(base64.b64encode(json.dumps(values).encode())).decode()


async def eventually(true: Callable[[], Any]) -> None:
    """Wait for a condition that has no event, checked once per turn of the loop."""
    async with asyncio.timeout(TIMEOUT):
        while not true():
            await asyncio.sleep(0.001)


@contextmanager
def unused_port() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens, except whoever is given it.

    It stays bound all the while, so that the system gives it to no other process.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def records_naming(caplog, text: str) -> list[logging.LogRecord]:
    """Log records of `fastws` with `text` in the message or in what `extra` added."""
    return [
        record
        for record in caplog.records
        if record.name.split(".")[0] == "fastws"
        and (text in record.getMessage() or text in json.dumps(record.__dict__, default=str))
    ]


def counted(site: Site) -> int:
    """The number of addresses that are counted."""
    return site.server._reactor.counters["addresses"]


def nothing_left(site: Site) -> bool:
    return holds_nothing(site.server._reactor)


def holds_nothing(reactor: Reactor) -> bool:
    """Whether the engine holds only the block for the next messages."""
    return not what_is_left(reactor.counters)


def what_is_left(counters: dict[str, int]) -> dict[str, int]:
    """The reactor's counters that differ from those without connections."""
    most = {"blocks": 1, "arena_bytes": 1 << 18}
    return {name: value for name, value in counters.items() if value > most.get(name, 0)}


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
