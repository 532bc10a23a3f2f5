"""`fastws version`."""

import platform

import click

from .. import __version__, _core

__all__ = ["command", "tell"]


@click.command("version")
def command() -> None:
    """Show the version of fastws, of Python and of the system."""
    tell()


def tell() -> None:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    wires = "epoll" if _core.has_epoll else "asyncio transports"
    click.echo(f"fastws {__version__} with {python} on {platform.system()} ({platform.machine()}, {wires})")
