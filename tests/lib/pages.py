"""Pages of the documentation: their blocks, by the part that they are in, and programs that run as they are printed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page, and the heading that it is under."""

    page: str
    part: str
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    fenced = [match.span() for match in BLOCK.finditer(text)]
    headings = [
        (match.start(), match[1].replace("`", ""))
        for match in re.finditer(r"^#+ (.*)$", text, re.MULTILINE)
        if not any(start < match.start() < end for start, end in fenced)  # a comment of a program
    ]
    return [
        Block(
            page.name,
            [title for start, title in headings if start < match.start()][-1],
            match[1],
            match[2],
            text.count("\n", 0, match.start()) + 1,
        )
        for match in BLOCK.finditer(text)
    ]


def block(page: Path, part: str, language: str, number: int = 0) -> str:
    """The text of a block; of several of this language in this part, the one with the number."""
    return [b.text for b in blocks(page) if (b.part, b.language) == (part, language)][number]


def run(program: str, instead: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program of a page, on a free port; what it defines. ``instead`` has other texts for some of its own."""
    text = program.replace("Server(", "Server(port=0, ")
    for old, new in (instead or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(text, "<page>", "exec"), names)
    return names
