"""Runs a server until it is told to stop, and tells whoever started it how that goes."""

import asyncio
import errno
import gc
import os
from collections.abc import Callable

import click

from ..server import Server
from . import notify
from .failures import CannotListen

__all__ = ["run"]

LISTEN_ERRNOS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
MARGIN = 10  # seconds that a stop may take beyond its own limits


def run(server: Server, on_start: Callable[[asyncio.AbstractEventLoop], None] | None) -> None:
    """Serve until SIGINT or SIGTERM. ``on_start`` is called with the loop once the server listens."""

    def started(_: Server) -> None:
        if on_start is not None:
            on_start(server.loop)
        where = announce(server)
        spare_what_is_here_to_stay()
        notify.ready(where)
        notify.watchdog(server.loop)

    try:
        server.run(on_start=started, on_stop=lambda _: notify.stopping(seconds_to_stop(server)))
    except OSError as error:
        if error.errno not in LISTEN_ERRNOS:
            raise
        where = address(server) if server.options.uds is None else f"unix:{server.options.uds}"
        raise CannotListen(f"cannot listen on {where}: {os.strerror(error.errno)}") from error


def spare_what_is_here_to_stay() -> None:
    """Have the garbage collector pass over all modules and settings from now on.

    They stay until the end, and looking through them holds up the loop for about 20 ms each time.
    """
    gc.collect()
    gc.freeze()


def seconds_to_stop(server: Server) -> float:
    """The longest that a stop takes: the drain, then the last connections, the handlers and the HTTP application."""
    return server.options.drain_timeout + 3 * server.options.close_timeout + MARGIN


def address(server: Server) -> str:
    host = server.host or "0.0.0.0"
    return f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"


def announce(server: Server) -> str:
    """Print where the server listens, and its endpoints; returns the former."""
    if server.port == 0:
        where, sockets = f"unix:{server.host}", ", ".join(server.endpoints)
    else:
        secure = "s" if server.options.ssl else ""
        where = f"http{secure}://{address(server)}"
        sockets = ", ".join(f"ws{secure}://{address(server)}{path}" for path in server.endpoints)
    click.echo(f"fastws listening on {where}" + (f"  ({sockets})" if sockets else ""))
    return f"listening on {where}"
