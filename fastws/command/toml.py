"""A TOML file with the line of each value, which tomllib does not tell."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

__all__ = ["BadFile", "Path", "parse"]

# From the top of the file to a value: ("api", "keys", 0, "name").
Path: TypeAlias = tuple[str | int, ...]


class BadFile(ValueError):
    """The text is not TOML: on which line, and why."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> tuple[dict[str, Any], dict[Path, int]]:
    """Returns what a file says, and the line of each table and value; raises BadFile."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line, column = _place(str(error), text)
        raise BadFile(line, f"{message} (column {column})") from None
    return content, _lines(text)


def _place(message: str, text: str) -> tuple[str, int, int]:
    """What tomllib says of a fault, with its place apart."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return message, 1, 1
    if found[2] is None:
        lines = text.rstrip("\n").split("\n")
        return found[1], len(lines), len(lines[-1]) + 1
    return found[1], int(found[2]), int(found[3])


def _lines(text: str) -> dict[Path, int]:
    lines: dict[Path, int] = {}
    table: Path = ()
    arrays: Counter[Path] = Counter()  # tables so far in each [[array]]
    for number, statement in _statements(text):
        path, value = _unwrap(tomllib.loads(statement))
        if not statement.lstrip().startswith("["):
            _record(lines, (*table, *_within(path, ())), value, number)
            continue
        table = _within(path, (), arrays)
        if statement.lstrip().startswith("[["):
            arrays[table] += 1
            table = (*table, arrays[table] - 1)
        _record(lines, table, {}, number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header and each assignment, with the number of its first line: as many lines as make TOML by themselves."""
    number, statement = 1, ""
    for line_number, line in enumerate(text.split("\n"), 1):
        if not statement:
            number = line_number
        statement += line + "\n"
        try:
            is_something = bool(tomllib.loads(statement))
        except tomllib.TOMLDecodeError:
            continue
        if is_something:
            yield number, statement
        statement = ""


def _unwrap(content: Any) -> tuple[list[str], Any]:
    """The one name, or dotted name, that a statement is about, and its value."""
    path: list[str] = []
    while isinstance(content, dict) and len(content) == 1:
        ((name, content),) = content.items()
        path.append(name)
    return path, content


def _within(names: list[str], path: Path, arrays: Counter[Path] | None = None) -> Path:
    """A path whose steps into an [[array]] go into its last table so far."""
    for position, name in enumerate(names, 1):
        path = (*path, name)
        if arrays and position < len(names) and arrays[path]:
            path = (*path, arrays[path] - 1)
    return path


def _record(lines: dict[Path, int], path: Path, value: Any, number: int) -> None:
    for end in range(1, len(path) + 1):
        lines.setdefault(path[:end], number)
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in below:
        _record(lines, (*path, name), inner, number)
