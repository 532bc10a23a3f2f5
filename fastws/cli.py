"""The command line: `fastws serve`."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import platform
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from . import FastWSError, Server, __version__
from .config import EndpointOptions, Options

try:
    import click
except ImportError:
    sys.exit("fastws: the command line needs click: pip install 'fastws-server[server]'")

__all__ = ["main"]

SETTINGS = Path("fastws.toml")
LOG_LEVELS = ["debug", "info", "warning", "error", "critical"]
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CANNOT_LISTEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
VERSION = f"fastws {__version__} with {platform.python_implementation()} {platform.python_version()}"


class Failure(click.ClickException):
    """Ends the command with one sentence on stderr."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main() -> None:
    """Run the command line and leave with its exit status: 1 for a taken port, 2 for anything else that cannot work."""
    try:
        sys.exit(cli.main(prog_name="fastws", standalone_mode=False))
    except click.ClickException as error:
        click.echo(f"fastws: {error.format_message()}", err=True)
        sys.exit(error.exit_code)


def parameters() -> Iterator[click.Option]:
    """A command line option for each of `Options` that text can say; code alone can give the others."""
    scalars: dict[Any, Any] = {int: int, int | None: int, float: float, str: str}
    for option in fields(Options):
        several = option.type in (Sequence[str], Sequence[str] | None)
        if get_origin(option.type) is Literal:
            kind: Any = click.Choice(get_args(option.type))
        elif several or option.type in scalars:
            kind = scalars.get(option.type, str)
        else:
            continue
        yield click.Option(
            [f"--{option.name.replace('_', '-')}"],
            type=kind,
            multiple=several,
            help=option.metadata["help"],
            show_default=str(option.default) if option.default else False,
        )


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(message=f"{VERSION} on {platform.system()}")
@click.pass_context
def cli(context: click.Context) -> None:
    """A fast WebSocket server: channels, users and broadcasts."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    context.default_map = {"serve": settings()}


@cli.command(
    params=list(parameters()),
    context_settings={"auto_envvar_prefix": "FASTWS", "show_default": True, "max_content_width": 100},
)
@click.argument("target", required=False, metavar="[MODULE:SERVER]")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="least level of what is logged to stderr")
def serve(target: str | None, log_level: str | None, **options: Any) -> None:
    """Run a server: MODULE:SERVER names one, or a function that makes one; without it, the demo chat.

    Every option may also stand in fastws.toml (flush_threads = 2) or in the environment (FASTWS_FLUSH_THREADS=2).
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    try:
        server = demo(given) if target is None else configured(load(target), given)
        set_up_logging(log_level)
        server.run(on_start=announce)
    except FastWSError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        if error.errno not in CANNOT_LISTEN:
            raise
        raise Failure(f"cannot listen on {address(server)}: {os.strerror(error.errno)}", exit_code=1) from error


def settings() -> dict[str, Any]:
    """What fastws.toml in the working directory says."""
    try:
        found = tomllib.loads(SETTINGS.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"{SETTINGS} cannot be read: {error}") from error
    known = {parameter.name for parameter in serve.params}
    for name in found.keys() - known:
        raise Failure(f"{SETTINGS} has {name!r}, which is no option: see fastws serve --help")
    return found


def load(target: str) -> Server:
    """The server that ``module:attribute`` names; modules in the working directory come first."""
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise Failure(f"{target!r} names no server: write module:attribute, as in app:server")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and itself imports what is not
        raise Failure(f"there is no module {error.name!r} here or on Python's path") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise Failure(f"{module_name!r} has no attribute {path!r}")
        found = getattr(found, name)
    if callable(found):
        found = found()
    if not isinstance(found, Server):
        raise Failure(f"{target!r} is {found!r}, and neither a fastws.Server nor a function that returns one")
    return found


def demo(options: Mapping[str, Any]) -> Server:
    from .demo import create_server

    return create_server(**options)


def configured(server: Server, given: Mapping[str, Any]) -> Server:
    """Override what the server was built with; what an endpoint was given for itself stays."""
    before = server.options
    server.options = replace(before, **given)
    shared = {option.name for option in fields(EndpointOptions)} & given.keys()
    for manager in server.endpoints.values():
        own = manager.options
        inherited = {name: given[name] for name in shared if getattr(own, name) == getattr(before, name)}
        manager.options = replace(own, **inherited)
    return server


def set_up_logging(level: str | None) -> None:
    logging.basicConfig(format=LOG_FORMAT)  # does nothing where the application has its own handlers
    if level is not None:
        logging.getLogger("fastws").setLevel(level.upper())


def address(server: Server) -> str:
    host = server.host or "0.0.0.0"
    return f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"


def announce(server: Server) -> None:
    """Say where it listens, and for what."""
    secure = "s" if server.options.ssl else ""
    sockets = ", ".join(f"ws{secure}://{address(server)}{path}" for path in server.endpoints)
    click.echo(f"fastws listening on http{secure}://{address(server)}" + (f"  ({sockets})" if sockets else ""))
