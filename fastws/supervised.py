"""A worker of `fastws serve --workers`: what it knows of its supervisor, and says to it."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ClassVar, cast

__all__ = [
    "ALIVE",
    "ANSWERS",
    "ASK",
    "BACKLOG",
    "END",
    "LEAVE",
    "LINK",
    "NUMBER",
    "READY",
    "REPORT",
    "RESTART",
    "SERVE",
    "STOPPING",
    "Supervision",
    "supervision",
    "worker_number",
]

NUMBER = "FASTWS_WORKER"  # in the environment: which worker this is, from 1 on
LINK = "FASTWS_SUPERVISOR"  # descriptor of the socket to the supervisor

BACKLOG = 4096  # connections that the kernel may queue

# Words that begin a line: what a worker says, and its supervisor.
READY, STOPPING, ALIVE, ASK = "ready", "stopping", "alive", "ask"
RESTART, SERVE, LEAVE, ANSWERS = "restart", "serve", "leave", "answers"
REPORT = "report"  # of the supervisor: give one; of a worker: here it is
END = b"\n"
ASK_SECONDS = 5.0  # that the reports of all workers may take


def worker_number() -> int | None:
    """Returns which worker this process is; None for a server on its own."""
    text = os.environ.get(NUMBER, "")
    return int(text) if text.isascii() and text.isdigit() else None


def supervision() -> "Supervision | None":
    """Returns what this process has to do with its supervisor; None for a server on its own."""
    return Supervision.current


class Supervision(asyncio.Protocol):
    """The worker's end of the socket pair. Its supervisor's end is closed when that is gone."""

    current: "ClassVar[Supervision | None]" = None

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._transport: asyncio.WriteTransport | None = None
        self._early: list[bytes] = []  # said before the loop had the link
        self._said = b""
        self._is_over = False
        self._orders: dict[str, Callable[[str], None]] = {ANSWERS: self._answer}
        self._asking: asyncio.Future[dict[str, Any]] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    def of_environment(cls) -> "Supervision | None":
        """Returns that of this process; None for a server on its own. What the process starts itself has none."""
        text = os.environ.pop(LINK, "")
        if worker_number() is None or not text.isdigit():
            return None
        link = socket.socket(fileno=int(text))
        link.set_inheritable(False)
        link.setblocking(False)
        cls.current = cls(link)
        return cls.current

    def listen(self, descriptors: Iterable[int]) -> None:
        """Have connections come to sockets that the supervisor has opened: now, since this worker can serve them."""
        for fd in descriptors:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    sock.listen(BACKLOG)

    def obey(self, word: str, order: Callable[[str], None]) -> None:
        """Call with the rest of each line of the supervisor that begins with a word."""
        self._orders[word] = order

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do what the supervisor says from now on, and stop this process when it is gone."""
        self._run(loop.create_unix_connection(lambda: self, sock=self._link))

    def say(self, word: str, rest: object = "") -> None:
        """Say something to the supervisor, which may be gone."""
        line = f"{word} {rest}".encode() + END
        if self._transport is None:
            self._early.append(line)
        elif not self._is_over:
            self._transport.write(line)

    def pulse(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say, as often as the service manager wants to know, that the loop turns."""
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        if not (microseconds.isascii() and microseconds.isdigit()) or int(microseconds) == 0:
            return
        interval = int(microseconds) / 1_000_000 / 2

        def turn() -> None:
            self.say(ALIVE)
            loop.call_later(interval, turn)

        turn()

    # -- reports of all workers

    def report(self, make: Callable[[], Awaitable[Any]]) -> None:
        """Give a report, which can be JSON, whenever any worker asks for those of all."""

        async def give() -> None:
            self.say(REPORT, json.dumps(await make()))

        self._orders[REPORT] = lambda _: self._run(give())

    async def reports(self) -> dict[str, Any]:
        """Returns the reports of all workers that serve, by their numbers; of those that give one in time."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_future()
            self.say(ASK)
        try:
            return await asyncio.wait_for(asyncio.shield(self._asking), ASK_SECONDS)
        except TimeoutError:
            return {}

    def _answer(self, rest: str) -> None:
        if self._asking is not None:
            self._asking.set_result(json.loads(rest))
            self._asking = None

    # -- the link

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        *lines, self._said = (self._said + data).split(END)
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word in self._orders:
                self._orders[word](rest)

    def connection_lost(self, error: Exception | None) -> None:
        """The supervisor is gone."""
        self._is_over = True
        os.kill(os.getpid(), signal.SIGTERM)
