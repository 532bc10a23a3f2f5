"""`fastws selftest`."""

import click

from .. import selftest
from ..errors import FastWSError
from .failures import Failure
from .version import tell

__all__ = ["command"]


@click.command("selftest")
def command() -> None:
    """Try an echo, a broadcast, compression and TLS on 127.0.0.1; status 2 if anything fails."""
    tell()
    try:
        click.echo(selftest())
    except FastWSError as error:
        raise Failure(str(error)) from None
