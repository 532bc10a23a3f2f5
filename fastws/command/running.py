"""Runs a server until it is told to stop, and tells whoever started it how that goes."""

import asyncio
import errno
import gc
import os
import socket
from collections.abc import Callable

import click

from ..server import Server
from ..supervised import LEAVE, READY, RESTART, SERVE, STOPPING, Supervision
from . import notify
from .failures import CannotListen

__all__ = ["LISTEN_ERRNOS", "cannot_listen", "run"]

LISTEN_ERRNOS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
MARGIN = 10  # seconds that a stop may take beyond its own limits


def run(
    server: Server,
    on_start: Callable[[asyncio.AbstractEventLoop], None] | None,
    supervision: Supervision | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. ``on_start`` is called with the loop once the server listens.

    How it goes is said to the service manager, or to the supervisor of which this is a worker.
    """

    def started(_: Server) -> None:
        if on_start is not None:
            on_start(server.loop)
        where, said = announcement(server)
        spare_what_is_here_to_stay()
        if supervision is None:
            click.echo(said)
            notify.ready(where)
            notify.watchdog(server.loop)
        else:
            Lending(server).begin(supervision)
            supervision.watch(server.loop)
            supervision.say(READY, said)
            supervision.pulse(server.loop)

    def stopping(_: Server) -> None:
        if supervision is None:
            notify.stopping(seconds_to_stop(server))
        else:
            supervision.say(STOPPING, seconds_to_stop(server))

    try:
        server.run(on_start=started, on_stop=stopping)
    except OSError as error:
        if error.errno not in LISTEN_ERRNOS:
            raise
        raise cannot_listen(server.host, server.port, server.options.uds, error) from error


class Lending:
    """What a supervisor tells its worker: to serve sockets of others that are not there, and that it is replaced."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lent: dict[int, socket.socket] = {}  # by descriptor
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, supervision: Supervision) -> None:
        """Do as one is told."""
        supervision.obey(RESTART, lambda _: self._server.reconfigure(restart=True))
        supervision.obey(SERVE, self._serve)
        supervision.obey(LEAVE, self._leave)

    def _serve(self, descriptors: str) -> None:
        for fd in map(int, descriptors.split()):
            sock = self._lent[fd] = socket.socket(fileno=os.dup(fd))
            task = self._server.loop.create_task(self._server.accept_also(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _leave(self, descriptors: str) -> None:
        for fd in map(int, descriptors.split()):
            if fd in self._lent:
                self._server.accept_no_more(self._lent.pop(fd))


def cannot_listen(host: str, port: int, uds: str | None, error: OSError) -> CannotListen:
    """Returns what ends the command because an address is not to be had."""
    where = address(host, port) if uds is None else f"unix:{uds}"
    return CannotListen(f"cannot listen on {where}: {os.strerror(error.errno or 0)}")


def spare_what_is_here_to_stay() -> None:
    """Have the garbage collector pass over all modules and settings from now on.

    They stay until the end, and looking through them holds up the loop for about 20 ms each time.
    """
    gc.collect()
    gc.freeze()


def seconds_to_stop(server: Server) -> float:
    """The longest that a stop takes: the drain, then the last connections, the handlers and the HTTP application."""
    return server.options.drain_timeout + 3 * server.options.close_timeout + MARGIN


def address(host: str, port: int) -> str:
    host = host or "0.0.0.0"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def announcement(server: Server) -> tuple[str, str]:
    """Returns where the server listens, in short and with its endpoints."""
    paths = [path for path in server.endpoints if path.startswith("/")]  # not the HTTP application
    if server.port == 0:
        where, sockets = f"unix:{server.host}", ", ".join(paths)
    else:
        secure, place = "s" if server.options.ssl else "", address(server.host, server.port)
        where = f"http{secure}://{place}"
        sockets = ", ".join(f"ws{secure}://{place}{path}" for path in paths)
    return f"listening on {where}", f"fastws listening on {where}" + (f"  ({sockets})" if sockets else "")
