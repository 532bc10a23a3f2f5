"""The scripts that run in Redis; each is one step that nobody can come between."""

from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

__all__ = ["Script", "all_scripts", "script"]

FOLDER = Path(__file__).parent


class Script(NamedTuple):
    """A script, and the name by which Redis knows it once it is loaded."""

    text: bytes
    sha: str


@cache
def script(name: str) -> Script:
    """Returns the script in a file of this folder."""
    text = (FOLDER / f"{name}.lua").read_bytes()
    return Script(text, sha1(text, usedforsecurity=False).hexdigest())


@cache
def all_scripts() -> list[Script]:
    """Returns all of them."""
    return [script(path.stem) for path in sorted(FOLDER.glob("*.lua"))]
