"""The command line: `fastws serve`."""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import logging
import os
import platform
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from . import FastWSError, Server, __version__
from .config import EndpointOptions, OptionKeywords, Options, default_of
from .reload import serve_reloading
from .sockets import inherited

try:
    import click
except ImportError:
    sys.exit("fastws: the command line needs click: pip install 'fastws-server[server]'")

__all__ = ["main"]

SETTINGS_PATH = Path("fastws.toml")
LOG_LEVELS = ["debug", "info", "warning", "error", "critical"]
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LISTEN_ERRNOS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
VERSION_MESSAGE = (
    f"fastws %(version)s with {platform.python_implementation()} {platform.python_version()} on {platform.system()}"
)
ENDPOINT_OPTIONS = {option.name for option in fields(EndpointOptions)}  # those that an endpoint can override


class Failure(click.ClickException):
    """Ends the command with one sentence on stderr."""

    exit_code = 2


class CannotListen(Failure):
    exit_code = 1


def main() -> None:
    """Run the command line and exit: with status 1 if the address is taken, 2 for any other error."""
    try:
        sys.exit(cli.main(prog_name="fastws", standalone_mode=False))
    except click.ClickException as error:
        click.echo(f"fastws: {error.format_message()}", err=True)
        sys.exit(error.exit_code)


def parameters() -> Iterator[click.Option]:
    """Yields a command line option for each of `Options` that can be given as text."""
    scalars: dict[Any, Any] = {kind: kind for kind in (int, float, str, bool)}
    scalars |= {int | None: int, str | None: str}
    lists: dict[Any, Any] = {Sequence[str]: str, Sequence[str] | None: str, Sequence[int]: int}
    for option in sorted(fields(Options), key=lambda option: option.name in ENDPOINT_OPTIONS):
        if get_origin(option.type) is Literal:
            kind: Any = click.Choice(get_args(option.type))
        elif option.metadata["parse"] is not None:
            kind = parameter_type(option.metadata["parse"])
        elif option.type in scalars | lists:
            kind = (scalars | lists)[option.type]
        else:
            continue
        yield click.Option(
            [f"--{option.name.replace('_', '-')}"],
            type=kind,
            is_flag=kind is bool,
            default=None,
            multiple=option.type in lists,
            help=option.metadata["help"] + (f"  [default: {default_of(option)}]" if option.default else ""),
        )


def parameter_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns a click parameter type for an option that parses its own text."""

    @functools.wraps(parse)  # --help shows its name
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{error}.") from None

    return convert


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message=VERSION_MESSAGE)
@click.pass_context
def cli(context: click.Context) -> None:
    """A fast WebSocket server: channels, users and broadcasts."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    else:
        context.default_map = {"serve": settings()}


@cli.command(params=list(parameters()), context_settings={"auto_envvar_prefix": "FASTWS"})
@click.argument("target", required=False, metavar="[MODULE:SERVER]")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="lowest level to log to stderr")
@click.option("--reload/--no-reload", help="for development: restart whenever a Python file in this directory changes")
def serve(target: str | None, log_level: str | None, reload: bool, **options: Any) -> None:
    """Run the server MODULE:SERVER, or the demo chat.

    MODULE:SERVER may also be a function without arguments that returns a server. Every option can also be set in the
    environment (FASTWS_FLUSH_THREADS=2) or in a file named fastws.toml (flush_threads = 2). Sockets passed by systemd
    (LISTEN_FDS) are used unless --fd or the server itself specifies others.
    """
    given: Any = {name: value for name, value in options.items() if value not in (None, ())}
    try:
        if reload:
            set_up_logging(log_level)
            Options(**given)  # report a bad value once, not at every restart
            serve_reloading(given.get("fd") or inherited())
            return
        if target is None:
            server = demo(given)  # which has its own meaning of `origins`
        else:
            server = load(target)
            server.reconfigure(**given)
        if not server.options.fd and (passed := inherited()):
            server.reconfigure(fd=passed)
        set_up_logging(log_level)
        run(server)
    except FastWSError as error:
        raise Failure(str(error)) from error


def settings() -> dict[str, Any]:
    """Returns the settings in fastws.toml in the working directory."""
    try:
        found = tomllib.loads(SETTINGS_PATH.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {SETTINGS_PATH}: {error}") from error
    known = {str(parameter.name): parameter for parameter in serve.params}
    for name in found.keys() - known.keys():
        raise Failure(f"{SETTINGS_PATH}: {name!r} is not an option; choose from {', '.join(sorted(known))}")
    return {name: to_text(known[name], value) for name, value in found.items()}


def to_text(parameter: click.Parameter, value: Any) -> str | list[str]:
    """Returns a value from TOML as it would be on the command line, so that it is checked in the same way."""
    if not getattr(parameter, "multiple", False):
        return str(value)
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


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
    if callable(found) and takes_nothing(found):
        found = found()
    if not isinstance(found, Server):
        raise Failure(f"{target!r} is {found!r}: it must be a fastws.Server or a function that returns one")
    return found


def takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def demo(options: OptionKeywords) -> Server:
    from .demo import create_server

    return create_server(**options)


def run(server: Server) -> None:
    try:
        server.run(on_start=announce)
    except OSError as error:
        if error.errno not in LISTEN_ERRNOS:
            raise
        where = address(server) if server.options.uds is None else f"unix:{server.options.uds}"
        raise CannotListen(f"cannot listen on {where}: {os.strerror(error.errno)}") from error


def set_up_logging(level: str | None) -> None:
    logging.basicConfig(format=LOG_FORMAT)  # does nothing if the application has its own handlers
    if level is not None:
        logging.getLogger("fastws").setLevel(level.upper())


def address(server: Server) -> str:
    host = server.host or "0.0.0.0"
    return f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"


def announce(server: Server) -> None:
    """Print where the server listens, and its endpoints."""
    if server.port == 0:
        paths = ", ".join(server.endpoints)
        click.echo(f"fastws listening on unix:{server.host}" + (f"  ({paths})" if paths else ""))
        return
    secure = "s" if server.options.ssl else ""
    sockets = ", ".join(f"ws{secure}://{address(server)}{path}" for path in server.endpoints)
    click.echo(f"fastws listening on http{secure}://{address(server)}" + (f"  ({sockets})" if sockets else ""))
