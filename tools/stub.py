"""Copies the engine's docstrings into its stub, where editors look for them.

After `make build`: `python -m tools.stub`.
"""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple, TypeGuard

from fastws import _core

STUB = Path(__file__).parent.parent / "fastws" / "_core.pyi"


class Slot(NamedTuple):
    """Where a docstring belongs in the stub: it replaces the text from `start` to `end`."""

    start: int
    end: int
    text: str


def main() -> None:
    STUB.write_text(with_docstrings(STUB.read_text()))


def with_docstrings(stub: str) -> str:
    """Returns the stub with the engine's docstrings of public classes, methods, properties and functions."""
    for slot in reversed(list(slots(Source(stub), ast.parse(stub), _core))):
        stub = stub[: slot.start] + slot.text + stub[slot.end :]
    return stub


class Source:
    """A text, and the positions of syntax nodes in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = [0]
        for line in text.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def before(self, node: ast.stmt) -> int:
        """Returns the end of what precedes a statement and its decorators."""
        first = min([node, *getattr(node, "decorator_list", [])], key=lambda each: each.lineno)
        return len(self.text[: self._lines[first.lineno - 1] + first.col_offset].rstrip(" \n@"))

    def after(self, node: ast.stmt) -> int:
        """Returns the end of a statement."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.end_lineno - 1] + node.end_col_offset


def slots(source: Source, tree: ast.Module | ast.ClassDef, engine: Any) -> Iterator[Slot]:
    """Yields the slots of a module or a class in order; `engine` is its counterpart in the engine."""
    for node, following in pairwise([*tree.body, None]):
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            first, its = node.body[0], getattr(engine, node.name)
            start = source.before(first)
            yield Slot(
                start, source.after(first) if is_string(first) else start, docstring_lines(its, node.col_offset + 4)
            )
            yield from slots(source, node, its)
        elif isinstance(node, ast.FunctionDef) and is_public(node.name):
            text = docstring_lines(vars(engine)[node.name], node.col_offset + 4)
            yield Slot(source.before(node.body[0]), source.after(node.body[-1]), text or " ...")
        elif isinstance(node, ast.AnnAssign) and isinstance(tree, ast.ClassDef) and is_public(ast.unparse(node.target)):
            last = following if is_string(following) else node
            text = docstring_lines(vars(engine)[ast.unparse(node.target)], node.col_offset)
            yield Slot(source.after(node), source.after(last), text)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def is_string(node: ast.stmt | None) -> TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def docstring_lines(its: Any, column: int) -> str:
    """Returns the docstring of an object in the engine on lines of its own, or ""."""
    doc = inspect.cleandoc(its.__doc__ or "")
    if not doc:
        return ""
    several = "\n" if "\n" in doc else ""
    return "\n" + indent(f'"""{doc}{several}"""', " " * column)


if __name__ == "__main__":
    main()
