"""Options of the command line, made from the declarations of settings; none has a default of its own."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from ..config import EndpointOptions, Options, default_of
from ..errors import FastWSError
from .failures import Failure
from .settings import Faults, Settings, load
from .values import duration

__all__ = ["config_flag", "ending", "loaded", "option_flags", "parameter_type", "seconds", "server_flags", "with_flags"]

ENDPOINT_OPTIONS = {option.name for option in fields(EndpointOptions)}  # those that an endpoint can override
LOG_LEVELS = ["debug", "info", "warning", "error", "critical"]
SCALARS: Mapping[Any, Any] = {int: int, float: float, str: str, bool: bool, int | None: int, str | None: str}
LISTS: Mapping[Any, Any] = {Sequence[str]: str, Sequence[str] | None: str, Sequence[int]: int}


def with_flags(flags: Iterator[click.Option]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a command these options."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        known = getattr(function, "__click_params__", [])
        function.__click_params__ = [*reversed(list(flags)), *known]  # type: ignore[attr-defined]
        return function

    return decorate


def config_flag() -> Iterator[click.Option]:
    yield click.Option(
        ["-c", "--config"],
        type=click.Path(path_type=Path),
        envvar="FASTWS_CONFIG",
        help="the configuration file  [default: fastws.toml, if it is there]",
    )


def server_flags() -> Iterator[click.Option]:
    """All that a server may be given on the command line."""
    yield from option_flags()
    file = click.Path()
    yield click.Option(["--ssl-certfile"], type=file, help="file of the TLS certificate and its chain, as PEM")
    yield click.Option(["--ssl-keyfile"], type=file, help="file of the certificate's key, as PEM")
    yield click.Option(["--ssl-keyfile-password"], help="password of that file; better in the environment")
    yield click.Option(["--ssl-keyfile-password-file"], type=file, help="file that holds the password")
    yield click.Option(["--ssl-ca-certs"], type=file, help="file of the authorities of clients' certificates")
    yield click.Option(
        ["--ssl-client-cert"],
        type=click.Choice(["required", "optional"]),
        help="whether clients need a certificate of their own",
    )
    yield click.Option(["--log-level"], type=click.Choice(LOG_LEVELS), help="lowest level to log to stderr")
    yield click.Option(["--log-format"], type=click.Choice(["text", "json"]), help="how a line of the log looks")
    yield click.Option(["--access-log/--no-access-log"], default=None, help="log each handshake and each close")
    yield click.Option(["--workers"], type=int, help="processes that serve  [default: 1]")
    yield click.Option(
        ["--reload/--no-reload"],
        default=None,
        help="for development: restart whenever a Python file in this directory changes",
    )


def option_flags() -> Iterator[click.Option]:
    """Yields a command line option for each of `Options` that can be given as text."""
    for option in sorted(fields(Options), key=lambda option: option.name in ENDPOINT_OPTIONS):
        if get_origin(option.type) is Literal:
            kind: Any = click.Choice(get_args(option.type))
        elif option.metadata["parse"] is not None:
            kind = parameter_type(option.metadata["parse"])
        elif option.type is float and option.metadata["help"].startswith("seconds"):
            kind = parameter_type(seconds)
        elif option.type in SCALARS:
            kind = SCALARS[option.type]
        elif option.type in LISTS:
            kind = LISTS[option.type]
        else:
            continue
        flag = f"--{option.name.replace('_', '-')}"
        yield click.Option(
            [f"{flag}/--no-{flag[2:]}" if kind is bool else flag],
            type=kind,
            is_flag=kind is bool,
            default=None,
            multiple=option.type in LISTS,
            help=option.metadata["help"] + (f"  [default: {default_of(option)}]" if option.default else ""),
        )


def seconds(text: str) -> float:
    try:
        return duration(text)
    except ValueError:
        raise ValueError(f'{text!r} is not a time: give seconds, or a text such as "1m30s"') from None


def parameter_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns a click parameter type for an option that parses its own text."""

    @functools.wraps(parse)  # --help shows its name
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{error}.") from None

    return convert


def loaded(config: Path | None, flags: Mapping[str, Any]) -> Settings:
    """The configuration, of the file, the environment and these flags; ends the command where it cannot work."""
    with ending():
        return load(config, os.environ, flags)


class ending:
    """What cannot work ends the command: one line of stderr for each sentence, with the place in ``settings``."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Faults):
            raise Failure("\nfastws: ".join(error.sentences)) from error
        if isinstance(error, FastWSError):
            raise Failure(self._settings.located(str(error))) from error
