"""`fastws publish`."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import FastWSError
from .failures import Failure
from .remote import Remote, remote_flags

__all__ = ["command"]


@click.command("publish")
@click.argument("channel")
@click.argument("message")
@click.option("--text", is_flag=True, help="send the message as it is, even where it could be JSON")
@click.option("--user", "users", multiple=True, help="only to this user; may be given several times")
@remote_flags
def command(
    channel: str,
    message: str,
    text: bool,
    users: tuple[str, ...],
    config: Path | None,
    url: str | None,
    key: str | None,
) -> None:
    """Send a message to a channel of a running server; print how many connections it was addressed to.

    A MESSAGE that is JSON is sent as that, any other as text; - takes it from the standard input.
    """
    remote = Remote(config, url, key, "broadcast")
    content: Any = sys.stdin.read() if message == "-" else message
    if not text:
        with contextlib.suppress(ValueError):
            content = json.loads(content)
    try:
        count = remote.publisher().broadcast(channel, content, users=users or None)
    except (FastWSError, ValueError) as error:  # json takes NaN, which is no JSON
        raise Failure(f"{remote.url}: {error}") from None
    click.echo(f"{count:,} connection{'' if count == 1 else 's'}")
