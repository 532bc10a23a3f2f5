"""`fastws refusals`."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from .remote import Remote, remote_flags

__all__ = ["command"]


@click.command("refusals")
@click.option("--limit", default=20, type=click.IntRange(1, 1000), help="how many at most  [default: 20]")
@click.option("--find", metavar="TEXT", help="only those with this in them: a request's id, an address, a path")
@click.option("--json", "as_json", is_flag=True, help="as JSON, one a line")
@remote_flags
def command(limit: int, find: str | None, as_json: bool, config: Path | None, url: str | None, key: str | None) -> None:
    """Show whom a running server has refused of late, and why; the latest last."""
    found = Remote(config, url, key, "read").get("refusals", {"limit": 1000 if find else limit})["refusals"]
    if find:
        found = [each for each in found if find in " ".join(map(str, each.values()))][:limit]
    for each in reversed(found):
        click.echo(json.dumps(each) if as_json else line(each))


def line(refusal: dict[str, Any]) -> str:
    """One refusal as a line; whatever strangers sent is shown without its control characters."""
    moment = datetime.fromtimestamp(refusal["time"]).strftime("%H:%M:%S")
    origin = f", from {refusal['origin']}" if refusal["origin"] else ""
    text = (
        f"{moment} {refusal['remote_address'] or '-'} {refusal['path'] or '-'} {refusal['status']} "
        f"{refusal['message']}{origin} ({refusal['request_id']})"
    )
    return "".join(character if character.isprintable() else "?" for character in text)
