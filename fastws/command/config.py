"""`fastws config`."""

import json
from pathlib import Path
from typing import Any

import click

from . import toml
from .described import dotted, effective, schema
from .flags import config_flag, ending, loaded, option_flags, with_flags
from .settings import PREFIX, masked_at, show

__all__ = ["command"]


@click.command("config")
@with_flags(config_flag())
@click.option("--json", "as_json", is_flag=True, help="as JSON: names to values and sources")
@click.option("--defaults", is_flag=True, help="what nobody has set as well")
@click.option("--env", is_flag=True, help="names as environment variables have them")
@click.option("--schema", "as_schema", is_flag=True, help="the file's JSON Schema instead, for editors")
@with_flags(option_flags())
def command(config: Path | None, as_json: bool, defaults: bool, env: bool, as_schema: bool, **flags: Any) -> None:
    """Show the configuration that `fastws serve` would run with, and where each value comes from.

    Secrets are not shown.
    """
    if as_schema:
        click.echo(json.dumps(schema(), indent=2))
        return
    settings = loaded(config, flags)
    with ending():
        found = list(effective(settings, defaults=defaults))
    name = variable if env else dotted
    if as_json:
        content = {
            name(path): {"value": masked_at(path, value), "source": str(source)} for path, value, source in found
        }
        click.echo(json.dumps(content, indent=2))
        return
    between = "=" if env else " = "
    lines = [(f"{name(path)}{between}{show(path, value)}", source) for path, value, source in found]
    width = min(max((len(text) for text, _ in lines), default=0), 60)
    for text, source in lines:
        click.echo(f"{text:{width}}  # {source}")


def variable(path: toml.Path) -> str:
    """The environment variable of a path; of what is within a list of tables the list's, which is JSON."""
    for position, step in enumerate(path):
        if isinstance(step, int):
            return PREFIX + "_".join(map(str, path[:position])).upper() + dotted(path[position:])
    return PREFIX + "_".join(map(str, path)).upper()
