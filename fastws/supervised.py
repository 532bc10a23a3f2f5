"""A worker of `fastws serve --workers`: what it knows of its supervisor, and says to it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Self

__all__ = [
    "ALIVE",
    "BACKLOG",
    "END",
    "LEAVE",
    "LINK",
    "NUMBER",
    "READY",
    "RESTART",
    "SERVE",
    "STOPPING",
    "Supervision",
    "worker_number",
]

NUMBER = "FASTWS_WORKER"  # in the environment: which worker this is, from 1 on
LINK = "FASTWS_SUPERVISOR"  # descriptor of the socket to the supervisor

BACKLOG = 4096  # connections that the kernel may queue

# Words that begin a line: what a worker says, and its supervisor.
READY, STOPPING, ALIVE = "ready", "stopping", "alive"
RESTART, SERVE, LEAVE = "restart", "serve", "leave"
END = b"\n"


def worker_number() -> int | None:
    """Returns which worker this process is; None for a server on its own."""
    text = os.environ.get(NUMBER, "")
    return int(text) if text.isascii() and text.isdigit() else None


class Supervision:
    """The worker's end of the socket pair. Its supervisor's end is closed when that is gone."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    @classmethod
    def of_environment(cls) -> Self | None:
        """Returns that of this process; None for a server on its own. What the process starts itself has none."""
        text = os.environ.pop(LINK, "")
        if worker_number() is None or not text.isdigit():
            return None
        link = socket.socket(fileno=int(text))
        link.set_inheritable(False)
        link.setblocking(False)
        return cls(link)

    def listen(self, descriptors: Iterable[int]) -> None:
        """Have connections come to sockets that the supervisor has opened: now, since this worker can serve them."""
        for fd in descriptors:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    sock.listen(BACKLOG)

    def watch(self, loop: asyncio.AbstractEventLoop, on_word: Callable[[str, str], None]) -> None:
        """Call with each word of the supervisor, and the rest of its line; stop this process when it is gone."""
        said = b""

        def read() -> None:
            nonlocal said
            new = self._link.recv(4096)
            if not new:
                loop.remove_reader(self._link)
                os.kill(os.getpid(), signal.SIGTERM)
            *lines, said = (said + new).split(END)
            for line in lines:
                word, _, rest = line.decode().partition(" ")
                on_word(word, rest)

        loop.add_reader(self._link, read)

    def say(self, word: str, rest: object = "") -> None:
        """Say something to the supervisor, which may be gone."""
        with contextlib.suppress(OSError):  # it is gone, which `watch` notices
            self._link.send(f"{word} {rest}".encode() + END)

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
