"""`fastws demo`."""

from pathlib import Path
from typing import Any

import click

from . import logs
from .flags import ending, loaded, server_flags, with_flags
from .running import run
from .serve import reloads, with_passed_sockets
from .tls import Certificates

__all__ = ["command"]

NO_FILE = Path("/dev/null")


@click.command("demo")
@with_flags(server_flags())
@click.option("--secret", envvar="FASTWS_DEMO_SECRET", help="signs the sessions; several nodes need the same one")
def command(secret: str | None, **flags: Any) -> None:
    """Run a chat, with its page at http://127.0.0.1:8765, to have a look.

    It takes the options of `fastws serve`, but does not read fastws.toml. A name is all the proof of identity that it
    asks for; see docs/running.md before you show it to others.
    """
    settings = loaded(NO_FILE, flags)
    if reloads(settings):
        return
    with ending(settings):
        from ..demo import create_server

        logs.set_up(settings.log or logs.LogSettings())
        certificates = Certificates.of(settings.top)
        options = {**settings.options, **({} if certificates is None else {"ssl": certificates.context})}
        server = create_server(secret=secret, **options)  # which takes `origins` in its own way
        run(with_passed_sockets(server), None if certificates is None else certificates.watch)
