"""`fastws serve`."""

import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..config import Options
from ..server import Server
from ..sockets import inherited
from ..supervised import Supervision, worker_number
from . import logs
from .failures import Failure
from .flags import config_flag, ending, loaded, server_flags, with_flags
from .rereading import Rereading
from .running import run
from .settings import Settings
from .tls import Certificates

__all__ = ["command", "created", "prepared", "reloads", "with_passed_sockets"]

logger = logging.getLogger("fastws.command")

NOTHING = "nothing is configured: `fastws demo` for a look, `fastws init` to begin"


@click.command("serve")
@click.argument("target", required=False, metavar="[MODULE:SERVER]")
@with_flags(config_flag())
@with_flags(server_flags())
def command(target: str | None, config: Path | None, **flags: Any) -> None:
    """Run the server that fastws.toml describes, or the server MODULE:SERVER.

    MODULE:SERVER may also be an ASGI application, or a function without arguments that returns either. Every option can
    also be set in the environment (FASTWS_FLUSH_THREADS=2) or in fastws.toml (flush_threads = 2). Sockets passed by
    systemd (LISTEN_FDS) are used unless --fd or the server itself specifies others. SIGHUP reads the file again.
    """
    given = {"target": target, **flags}
    settings = loaded(config, given)
    if settings.is_empty:
        raise Failure(NOTHING)
    supervision = Supervision.of_environment()
    if supervision is None and (reloads(settings) or has_workers(settings, lambda: loaded(config, given))):
        return
    with ending(settings):
        logs.set_up(settings.log or logs.LogSettings())
        certificates = Certificates.of(settings.top)
        server = created(settings)
        if worker_number() == 1:
            warn_of_idle_options(server, settings)
        server = prepared(server, settings, certificates)
        rereading = Rereading(server, settings, certificates, lambda: loaded(config, given))
        if supervision is not None:
            supervision.listen(server.options.fd)
        run(server, rereading.begin, supervision)


def reloads(settings: Settings) -> bool:
    """Run this command again and again, if that is asked for; whether it was."""
    if not settings.top.reload:
        return False
    if settings.top.workers > 1:
        raise Failure("reload and workers exclude each other: take one of them")
    from .reloading import serve_reloading

    with ending(settings):
        logs.set_up(settings.log or logs.LogSettings())
        serve_reloading(settings.options.get("fd") or inherited())
    return True


def has_workers(settings: Settings, load: Callable[[], Settings]) -> bool:
    """Run this command in several processes, if that is asked for; whether it was."""
    if settings.top.workers == 1:
        return False
    from .workers import serve_with_workers

    with ending(settings):
        logs.set_up(settings.log or logs.LogSettings())
        serve_with_workers(settings, load)
    return True


def created(settings: Settings, *, offline: bool = False) -> Server:
    """Returns the server that the settings name or describe; raises Failure, ConfigurationError.

    ``offline``: nothing is fetched.
    """
    if settings.top.target is not None:
        if settings.sections:
            idle = ", ".join(f"[{name}]" for name in settings.sections)
            logger.warning("%s does nothing here: %s is not described by sections", idle, settings.top.target)
        return load(settings.top.target)
    from ..standalone import create_server

    return create_server(settings, offline=offline)


def warn_of_idle_options(server: Server, settings: Settings) -> None:
    """Say which options in code a supervisor, which has opened the sockets, could not know of."""
    for name in ("host", "port", "uds"):
        value = getattr(server.options, name)
        if name not in settings.options and value != getattr(Options, name):
            logger.warning("%s=%r in code does nothing with workers: give it as an option of the command", name, value)


def prepared(server: Server, settings: Settings, certificates: Certificates | None) -> Server:
    """Returns the server with the options that were given, its certificate, and the sockets that systemd passed."""
    options = dict(settings.options)
    if server.options.backplane is not None and str(options.get("backplane", "")).startswith("hub://"):
        del options["backplane"]  # of a worker, which has said in code that it uses another store
    server.reconfigure(**options)
    if certificates is not None:
        server.reconfigure(ssl=certificates.context)
    return with_passed_sockets(server)


def with_passed_sockets(server: Server) -> Server:
    """Returns the server, on the sockets that systemd passed, unless it was given others."""
    if not server.options.fd and (passed := inherited()):
        server.reconfigure(fd=passed)
    return server


def load(target: str) -> Server:
    """Returns the server ``module:attribute``; modules in the working directory take precedence."""
    module_name, _, path = target.partition(":")
    if not module_name or not path or module_name.startswith("."):
        raise Failure(f"{target!r} does not name a server: write module:attribute, as in app:server")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but imports one that does not
        raise Failure(f"no module {error.name!r} here or on Python's path") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise Failure(f"{module_name!r} has no attribute {path!r}")
        found = getattr(found, name)
    if takes(found) and not inspect.iscoroutinefunction(found):
        found = found()
    if isinstance(found, Server):
        return found
    if takes(found, "scope", "receive", "send"):
        return Server(http=found)
    what = "it must be a fastws.Server, an ASGI application, or a function that returns one of them"
    if takes(found, "environ", "start_response"):
        what += "; this may be a WSGI application, which asgiref.wsgi.WsgiToAsgi makes an ASGI application"
    raise Failure(f"{target!r} is {found!r}: {what}")


def takes(found: Any, *arguments: str) -> bool:
    """Returns whether something can be called with as many arguments."""
    try:
        inspect.signature(found).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True
