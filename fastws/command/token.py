"""`fastws token`."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .failures import Failure
from .flags import config_flag, ending, loaded, parameter_type, seconds, with_flags
from .settings import Settings

if TYPE_CHECKING:
    from ..access.tokens import AuthSettings

__all__ = ["auth_of", "command", "read"]

HOUR = 3600.0  # seconds


@click.command("token")
@click.option("--user", help="whose token it is to be")
@click.option("--channels", multiple=True, metavar="GLOB", help="what it may subscribe to where a rule says token")
@click.option("--publish", multiple=True, metavar="GLOB", help="what it may publish to where a rule says token")
@click.option(
    "--ttl", type=parameter_type(seconds), default=None, help='how long it is good for, as in "1h"  [default: 1h]'
)
@click.option("--check", metavar="TOKEN", help="instead: say whose a token is, until when, or why it is refused")
@with_flags(config_flag())
def command(
    user: str | None,
    channels: tuple[str, ...],
    publish: tuple[str, ...],
    ttl: float | None,
    check: str | None,
    config: Path | None,
) -> None:
    """Print a token of a user, signed with the secret of [auth], or say what is in one."""
    if (user is None) == (check is None):
        raise Failure("give either --user NAME, for a token, or --check TOKEN")
    settings = loaded(config, {})
    if check is not None:
        whose, claims, expires = _report(settings, check)
        click.echo(f"user {whose}, until {_moment(expires)}")
        for name in claims.keys() - {"sub", "exp", "iat"}:
            click.echo(f"  {name}: {claims[name]}")
        return
    with ending():
        from ..access.tokens import make_token

        auth, name = auth_of(settings), user or ""
        click.echo(
            make_token(auth, name, channels=channels or None, publish=publish or None, ttl=HOUR if ttl is None else ttl)
        )


def auth_of(settings: Settings) -> "AuthSettings":
    """The section [auth]; ends the command where there is none."""
    if settings.auth is None:
        raise Failure('there is no [auth]: write one with a secret into fastws.toml, or see "fastws init"')
    auth: AuthSettings = settings.auth
    return auth


def read(settings: Settings, token: str) -> tuple[Any, Mapping[str, Any]]:
    """Whose a token is, and its claims; ends the command where it is refused."""
    user, claims, _ = _report(settings, token)
    return user, claims


def _report(settings: Settings, token: str) -> tuple[Any, Mapping[str, Any], float | None]:
    with ending():
        from ..access.tokens import check_token

        report = check_token(auth_of(settings), token)
    if report.fault:
        since = f", {_moment(report.expires)}" if report.expires is not None and report.expires < time.time() else ""
        raise Failure(f"the token is refused: {report.fault}{since}")
    return report.user, report.claims, report.expires


def _moment(seconds: float | None) -> str:
    return "for ever" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
