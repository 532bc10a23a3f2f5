"""`fastws explain`."""

from pathlib import Path

import click

from .failures import Failure
from .flags import config_flag, ending, loaded, with_flags

__all__ = ["command"]


@click.command("explain")
@click.option("--channel", required=True, help="the channel's name")
@click.option("--user", help="whoever asks  [default: nobody in particular]")
@click.option("--token", help="the token that they bring, whose claims count")
@with_flags(config_flag())
def command(channel: str, user: str | None, token: str | None, config: Path | None) -> None:
    """Tell who may do what in a channel, which rule says so, and why."""
    settings = loaded(config, {})
    if not settings.channels:
        raise Failure("there are no [[channels]], so nothing is allowed: write one, or see `fastws init`")
    with ending():
        from ..access.rules import Rules

        claims = None
        if token is not None:
            from .token import read

            user, claims = read(settings, token)
        names = {} if settings.auth is None else {"channels_claim": settings.auth.channels_claim}
        click.echo(str(Rules(settings.channels, **names).explain(user, channel, claims)))
