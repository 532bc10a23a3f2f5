"""What the declarations of settings say of themselves: names, defaults, descriptions; as rows and as a JSON Schema."""

import ast
import inspect as python
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, get_type_hints

import msgspec
from msgspec import inspect

from ..config import Options, default_of
from ..errors import ConfigurationError
from . import toml
from .settings import ARRAYS, SECTIONS, Settings, Source, TopLevel, option_kinds, section, show
from .values import DURATION_PATTERN, members, struct_of

__all__ = ["Entry", "Row", "dotted", "effective", "entries", "rows", "schema"]

LIVE = {("api", "keys"), ("log", "level"), ("log", "access")}  # sections that change without a restart


class Row(NamedTuple):
    """One setting: its path (a step into an [[array]] is left out), its default as text, and what it means."""

    path: tuple[str, ...]
    default: Any
    is_needed: bool
    meaning: str
    is_option: bool = False  # of a Server


def rows(*, skip_missing: bool = False) -> Iterator[Row]:
    """Every setting, the top of the file first. Raises ConfigurationError where a section needs a missing package."""
    for option in fields(Options):
        if option.name in option_kinds():
            yield Row((option.name,), default_of(option), False, option.metadata["help"], True)
    yield from _rows_of(TopLevel, ())
    for name in SECTIONS:
        try:
            struct = section(name)
        except ConfigurationError:
            if skip_missing:
                continue
            raise
        yield from _rows_of(struct, (name,))


def _rows_of(struct: type[msgspec.Struct], path: tuple[str, ...]) -> Iterator[Row]:
    meanings = descriptions(struct)
    for each in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        inner = struct_of(each.type)[0]
        if inner is not None:
            yield from _rows_of(inner, (*path, each.name))
        else:
            yield Row((*path, each.name), _default(each), each.required, meanings.get(each.name, ""))


def _default(each: Any) -> Any:
    if each.default is not msgspec.NODEFAULT:
        return each.default
    return None if each.default_factory is msgspec.NODEFAULT else each.default_factory()


@cache
def descriptions(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What each field means: its Meta(description=...), or the text that follows it in the source."""
    found: dict[str, str] = {}
    try:
        tree = ast.parse(textwrap.dedent(python.getsource(struct)))
    except (OSError, TypeError):
        tree = ast.Module([], [])
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    for node, after in pairwise(body):
        match node, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = python.cleandoc(text).replace("\n", " ")
    for name, hint in get_type_hints(struct, include_extras=True).items():
        for part in (hint, *getattr(hint, "__args__", ())):
            for meta in getattr(part, "__metadata__", ()):
                if isinstance(meta, msgspec.Meta) and meta.description and name not in found:
                    found[name] = meta.description
    return {name: _phrase(text) for name, text in found.items()}


def _phrase(text: str) -> str:
    """A meaning as the others are written: one phrase begins small, and has no full stop."""
    text = text.replace("``", "`")
    if text[:1].isupper() and not text[1:2].isupper():
        text = text[0].lower() + text[1:]
    return text if ". " in text else text.removesuffix(".")


# -- what is in force


def effective(settings: Settings, *, defaults: bool = False) -> Iterator[tuple[toml.Path, Any, Source]]:
    """Each value that was given, and with ``defaults`` all the others, with its source. Secrets are not masked."""
    declared = Options(**settings.options)
    for name in option_kinds():
        if name in settings.options or defaults:
            yield (name,), getattr(declared, name), _source(settings, (name,))
    yield from _effective_of(settings.top, (), settings, defaults)
    for name in SECTIONS:
        value = getattr(settings, name)
        if name in ARRAYS:
            for number, item in enumerate(value):
                yield from _effective_of(item, (name, number), settings, defaults)
        elif value is not None:
            yield from _effective_of(value, (name,), settings, defaults)


def _effective_of(
    struct: msgspec.Struct, path: toml.Path, settings: Settings, defaults: bool
) -> Iterator[tuple[toml.Path, Any, Source]]:
    for each in inspect.type_info(type(struct)).fields:  # type: ignore[attr-defined]
        here, value = (*path, each.name), getattr(struct, each.name)
        inner, is_list = struct_of(each.type)
        if inner is not None and is_list and value:
            for number, item in enumerate(value):
                yield from _effective_of(item, (*here, number), settings, defaults)
        elif inner is not None and value is not None and not is_list:
            yield from _effective_of(value, here, settings, defaults)
        elif defaults or value != _default(each):
            yield here, value, _source(settings, here, value == _default(each))


def _source(settings: Settings, path: toml.Path, is_default: bool = False) -> Source:
    """The source of a value, or of the table that it came with."""
    for end in range(len(path), len(path) - 1 if is_default else 0, -1):
        if path[:end] in settings.sources:
            return settings.sources[path[:end]]
        if path[:end] in settings.lines:
            return Source("file", str(settings.file), settings.lines[path[:end]])
    return Source("default")


def dotted(path: toml.Path) -> str:
    """A path as people write it: hooks.url, channels[0].pattern."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class Entry(NamedTuple):
    """A value in force as people read it, secrets masked, and where it came from."""

    path: toml.Path
    name: str
    value: str
    source: str


def entries(settings: Settings, before: Iterable[Entry] = ()) -> list[Entry]:
    """Returns every value in force; with those ``before``, when the settings of a running server were read again.

    Then what needs a restart is as it was.
    """
    new = [
        Entry(path, dotted(path), show(path, value), str(source))
        for path, value, source in effective(settings, defaults=True)
    ]
    old = list(before)
    if not old:
        return new
    kept = [entry for entry in old if not _is_live(entry.path)] + [entry for entry in new if _is_live(entry.path)]
    order = {name: place for place, name in enumerate(SECTIONS)}
    return sorted(kept, key=lambda entry: order.get(str(entry.path[0]), -1))


def _is_live(path: toml.Path) -> bool:
    return path[0] in ("channels", "origins") or path[:2] in LIVE


# -- a JSON Schema


def schema() -> dict[str, Any]:
    """The file's JSON Schema, for editors; sections whose packages are missing accept anything."""
    properties: dict[str, Any] = {}
    for option in fields(Options):
        if option.name in option_kinds():
            is_time = option.metadata["help"].startswith("seconds")
            kind = msgspec.json.schema(option.type)
            properties[option.name] = {
                **(_or_duration(kind) if is_time else kind),
                "description": option.metadata["help"],
                **({} if option.metadata["default_text"] else {"default": option.default}),
            }
    definitions: dict[str, Any] = {}
    for name in ("", *SECTIONS):
        try:
            struct = section(name) if name else TopLevel
        except ConfigurationError:
            properties[name] = {}
            continue
        (reference,), found = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
        definitions |= {key: _described(value, struct) for key, value in found.items()}
        if name:
            properties[name] = {"type": "array", "items": reference} if name in ARRAYS else reference
    properties |= definitions.pop(TopLevel.__name__)["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fastws.toml",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _described(definition: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    """A definition with what its fields mean, whose times may be texts."""
    structs = {struct.__name__: struct}
    for each in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        inner = struct_of(each.type)[0]
        if inner is not None:
            structs[inner.__name__] = inner
    owner = structs.get(definition.get("title", ""))
    if owner is None:
        return definition
    kinds = {each.name: each.type for each in inspect.type_info(owner).fields}  # type: ignore[attr-defined]
    meanings = descriptions(owner)
    for name, value in definition.get("properties", {}).items():
        if any(isinstance(member, inspect.FloatType) for member in members(kinds[name])):
            default = {"default": value["default"]} if "default" in value else {}
            definition["properties"][name] = value = {**_or_duration(value), **default}
        if name in meanings:
            value["description"] = meanings[name]
    return definition


def _or_duration(kind: dict[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in kind.items() if key not in ("default", "description")}
    return {"anyOf": [bare, {"type": "string", "pattern": DURATION_PATTERN}]}
