"""`fastws top`."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .remote import Remote, remote_flags

__all__ = ["command"]

MOST = 1000  # channels that are looked at, in the order of their names
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


@click.command("top")
@click.option("--interval", default=2.0, type=click.FloatRange(0.1), help="seconds between two looks  [default: 2]")
@click.option("--once", is_flag=True, help="look once, and end")
@remote_flags
def command(interval: float, once: bool, config: Path | None, url: str | None, key: str | None) -> None:
    """Show what is on a running server: its endpoints, and the channels with the most subscribers. Ctrl-C ends it."""
    remote = Remote(config, url, key, "read")
    while True:
        info = remote.get("info")
        channels = remote.get("channels", {"limit": MOST})["channels"]
        lines = list(page(remote.url, info, channels, shutil.get_terminal_size().lines - 1))
        click.echo(("" if once else CLEAR) + "\n".join(lines))
        if once:
            return
        time.sleep(interval)


def page(url: str, info: dict[str, Any], channels: list[dict[str, Any]], height: int) -> Iterator[str]:
    state = "ready" if info["is_ready"] else "not ready"
    since = "" if info["started"] is None else f", up for {_duration(time.time() - info['started'])}"
    yield f"fastws {info['version']} at {url}: {state}{since}, {info['connections']:,} connections"
    yield ""
    yield f"{'connections':>12}{'users':>10}{'channels':>10}  endpoint"
    for each in info["endpoints"]:
        yield f"{each['connections']:>12,}{each['users']:>10,}{each['channels']:>10,}  {each['path']}"
    yield ""
    yield f"{'subscribers':>12}{'users':>10}  channel" + (f" (of the first {MOST:,})" if len(channels) == MOST else "")
    room = max(height - 6 - len(info["endpoints"]), 5)
    for each in sorted(channels, key=lambda each: -each["subscribers"])[:room]:
        yield f"{each['subscribers']:>12,}{each['users']:>10,}  {each['name']}"


def _duration(seconds: float) -> str:
    whole = max(int(seconds), 0)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days or hours:
        return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
