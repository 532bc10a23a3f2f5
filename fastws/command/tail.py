"""`fastws tail`."""

import asyncio
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import FastWSError
from .failures import Failure
from .flags import config_flag, loaded, with_flags
from .remote import base_url
from .settings import Settings

if TYPE_CHECKING:
    from ..client import Message

__all__ = ["command"]

NAME = "fastws-tail"  # the user of a token that is made for this
HOUR = 3600.0  # seconds


@click.command("tail")
@click.argument("channel")
@click.option("--url", envvar="FASTWS_URL", help="where the server is  [default: where the configuration has it]")
@click.option(
    "--token", envvar="FASTWS_TOKEN", help="who looks  [default: a user of that name, where [auth] has a secret]"
)
@click.option("--user", default=NAME, help=f"the user that a token is made for  [default: {NAME}]")
@click.option("--json", "as_json", is_flag=True, help="messages alone, as JSON, one a line")
@click.option("--count", type=click.IntRange(1), help="end after so many messages")
@with_flags(config_flag())
def command(
    channel: str, url: str | None, token: str | None, user: str, as_json: bool, count: int | None, config: Path | None
) -> None:
    """Print what a channel of a running server gets, as one of its subscribers. Ctrl-C ends it.

    The channel's rule has to let the user subscribe: `fastws explain` says whether it does.
    """
    settings = Settings() if url and token else loaded(config, {})
    base = url.rstrip("/") if url else base_url(settings, scheme="ws")
    where = base.replace("http", "ws", 1) + "/ws"
    if token is None and settings.auth is not None and (settings.auth.secret or settings.auth.secret_file):
        from ..access.tokens import make_token

        token = make_token(settings.auth, user, channels=[channel], ttl=HOUR)
    logging.getLogger("fastws.client").addHandler(logging.NullHandler())  # what ends us is said once, below
    try:
        asyncio.run(follow(where, channel, token, as_json, count))
    except TimeoutError:
        raise Failure(f"{where} does not answer: is the server there?") from None
    except FastWSError as error:
        raise Failure(f"{where}: {error}") from None
    except KeyboardInterrupt:
        raise click.Abort from None


async def follow(url: str, channel: str, token: str | None, as_json: bool, count: int | None) -> None:
    from ..client import connect

    async with connect(url, token=token, timeout=5) as ws, ws.channel(channel) as messages:
        click.echo(f"subscribed to {channel}", err=True)
        number = 0
        async for message in messages:
            click.echo(json.dumps(shown(message), ensure_ascii=False) if as_json else line(message))
            number += 1
            if number == count:
                return


def shown(message: "Message") -> object:
    return message.message if not isinstance(message.message, bytes) else message.message.hex()


def line(message: "Message") -> str:
    moment = datetime.fromtimestamp(message.time / 1000) if message.time else datetime.now()
    head = f"{moment.strftime('%H:%M:%S.%f')[:-3]} {message.user or '-'}:"
    if message.deleted:
        return f"{head} {message.key} is deleted"
    value = json.dumps(shown(message), ensure_ascii=False)
    return f"{head} {value}" if message.key is None else f"{head} {message.key} = {value}"
