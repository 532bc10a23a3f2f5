"""A worker's process, as its supervisor sees it."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..backplane.hub_server import HubServer, HubWorker
from ..supervised import ALIVE, ASK, END, LINK, NUMBER, READY, REPORT, RESTART, STOPPING

__all__ = ["Process"]

logger = logging.getLogger("fastws.workers")

# What is said to the supervisor alone: it is the service manager of its workers.
ITS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Process(asyncio.Protocol):
    """One process, from its start to its end; ``on_ready``, ``on_stopping``, ``on_ask`` are called when it says so."""

    def __init__(
        self,
        number: int,
        on_ready: Callable[[str], None],
        on_stopping: Callable[["Process", float], None],
        on_ask: Callable[["Process"], None],
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self.number = number
        self.ended: asyncio.Future[int] = loop.create_future()
        """Its status; negative, the signal that killed it."""
        self.leaving: asyncio.Future[int] = loop.create_future()
        """The same; 0 already when it says that it stops."""
        self._ready: asyncio.Future[None] = loop.create_future()
        self._began = loop.time()
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._on_ask = on_ask
        self._reporting: asyncio.Future[str] | None = None
        self._link: asyncio.WriteTransport | None = None
        self._at_hub: HubWorker | None = None
        self._said = b""
        self._watchdog: asyncio.TimerHandle | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, descriptors: Sequence[int], others: Sequence[int], hub: HubServer, *, uses_hub: bool) -> None:
        """Run this command as a worker that listens on the sockets of these descriptors, and maybe on others later."""
        with contextlib.ExitStack() as opened:
            ours, link = map(opened.enter_context, socket.socketpair())
            hubs, end = map(opened.enter_context, socket.socketpair())
            for sock in (ours, hubs):
                sock.setblocking(False)
            await self._loop.create_unix_connection(lambda: self, sock=ours.dup())
            self._at_hub = await hub.connect(hubs.dup())
            environment = {name: value for name, value in os.environ.items() if name not in ITS_OWN}
            environment |= {NUMBER: str(self.number), LINK: str(link.fileno())}
            environment["FASTWS_FD"] = " ".join(map(str, descriptors))
            if uses_hub:
                environment["FASTWS_BACKPLANE"] = f"hub://{end.fileno()}"
            self._run(environment, [*others, link.fileno(), end.fileno()])

    def _run(self, environment: dict[str, str], passed: list[int]) -> None:
        command = [sys.executable, *sys.orig_argv[1:]]
        # A process group of its own: Ctrl-C is for the supervisor, which tells its workers.
        process = self._process = subprocess.Popen(command, env=environment, pass_fds=passed, process_group=0)
        threading.Thread(target=self._wait, args=(process,), daemon=True).start()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            self._loop.call_soon_threadsafe(self._end, status)

    def _end(self, status: int) -> None:
        for end in (self._link, self._at_hub):
            if end is not None:
                end.abort()  # what it has started may still hold the other one
        if self._watchdog is not None:
            self._watchdog.cancel()
        self.ended.set_result(status)
        self._leave(status)

    def _leave(self, status: int) -> None:
        if not self.leaving.done():
            self.leaving.set_result(status)

    @property
    def is_serving(self) -> bool:
        """Whether it is ready and does not stop."""
        return self._ready.done() and not self.leaving.done()

    async def becomes_ready(self, seconds: float) -> bool:
        """Returns whether it is ready within so many seconds."""
        either: list[asyncio.Future[Any]] = [self._ready, self.ended]
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return self._ready.done() and not self.ended.done()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return self._loop.time() - self._began

    @property
    def how_it_ended(self) -> str:
        """What became of it, for the log."""
        pid = 0 if self._process is None else self._process.pid
        if not self.ended.done():
            return f"(pid {pid}) was told to stop"
        status = self.ended.result()
        if status < 0:
            return f"(pid {pid}) was killed by {signal.Signals(-status).name}"
        return f"(pid {pid}) exited with status {status}"

    # -- what it is told

    def signal(self, number: int) -> None:
        """Send a signal."""
        if self._process is not None and not self.ended.done():
            self._process.send_signal(number)

    def say(self, word: str, rest: str = "") -> None:
        """Give an order, if it is still there."""
        if self._link is not None and not self._link.is_closing():
            self._link.write(f"{word} {rest}".encode() + END)

    async def report(self, seconds: float) -> str | None:
        """Returns its report, as JSON; None if it gives none in that time."""
        if self._reporting is None:
            self._reporting = self._loop.create_future()
            self.say(REPORT)
        reporting = self._reporting
        await asyncio.wait([reporting], timeout=seconds)
        return reporting.result() if reporting.done() else None

    def terminate(self) -> None:
        """Have it stop; a second time, at once."""
        self.signal(signal.SIGTERM)

    def reread(self) -> None:
        """Have it read its settings again, once it can."""
        self._ready.add_done_callback(lambda _: self.signal(signal.SIGHUP))

    def retire(self) -> None:
        """Have it stop, and tell its clients to come back at once."""
        self.say(RESTART)
        self.terminate()

    # -- what it says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self._link = None

    def data_received(self, data: bytes) -> None:
        *lines, self._said = (self._said + data).split(END)
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == READY:
                self._ready.set_result(None)
                self._on_ready(rest)
            elif word == STOPPING:
                self._leave(0)
                self._on_stopping(self, float(rest))
            elif word == ALIVE:
                self._watch()
            elif word == ASK:
                self._on_ask(self)
            elif word == REPORT and self._reporting is not None:
                self._reporting.set_result(rest)
                self._reporting = None

    def _watch(self) -> None:
        """It says that its loop turns: kill it if it does not say so again."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        seconds = int(os.environ["WATCHDOG_USEC"]) / 1_000_000
        self._watchdog = self._loop.call_later(seconds, self._hang)

    def _hang(self) -> None:
        logger.error("worker %d hangs: its loop has not turned for WATCHDOG_USEC", self.number)
        self.signal(signal.SIGABRT)
