"""Values of settings: made of text, checked against their types, described to whoever gave a wrong one."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

__all__ = ["DURATION_PATTERN", "as_given", "duration", "fault", "members", "nearest", "shown", "struct_of"]

FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}  # seconds, the longest first
DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in UNITS))
DURATION_PATTERN = f"^(?=.)({'|'.join(UNITS)}|[0-9.])+$"  # near enough, for editors
A_DURATION = 'seconds as a number, or a text such as "1m30s"'


def duration(text: str) -> float:
    """Seconds of a text such as "1m30s", "250ms" or "90"; raises ValueError."""
    found = DURATION.fullmatch(text.strip())
    if found is not None and found.lastindex is not None:
        return sum(float(number) * unit for number, unit in zip(found.groups(), UNITS.values(), strict=True) if number)
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def members(kind: inspect.Type) -> Iterator[inspect.Type]:
    """The types that a value may have; None, which no text says, left out."""
    if isinstance(kind, inspect.Metadata):
        yield from members(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from members(member)
    elif not isinstance(kind, inspect.NoneType):
        yield kind


def struct_of(kind: inspect.Type) -> tuple[type[msgspec.Struct] | None, bool]:
    """The struct that a value is, or is a list of, and whether it is a list."""
    for member in members(kind):
        if isinstance(member, inspect.StructType):
            return member.cls, False
        if _is_list(member):
            return struct_of(member.item_type)[0], True  # type: ignore[attr-defined]
    return None, False


def _is_list(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType)


# -- of text


def as_given(value: Any, kind: inspect.Type) -> Any:
    """A value as its type has it, where text says that; else as it is, for the check to complain about."""
    for member in members(kind):
        try:
            return _read(value, member)
        except ValueError:
            pass
    return value


def _read(value: Any, kind: inspect.Type) -> Any:
    if _is_list(kind):
        items = _items(value) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError(value)
        return [as_given(item, kind.item_type) for item in items]  # type: ignore[attr-defined]
    if not isinstance(value, str):
        if isinstance(kind, inspect.StrType | inspect.BoolType | inspect.DictType | inspect.StructType):
            raise ValueError(value)  # another member may take it
        return value
    if isinstance(kind, inspect.BoolType):
        return _flag(value)
    if isinstance(kind, inspect.IntType):
        return int(value)
    if isinstance(kind, inspect.FloatType):
        return duration(value)
    if isinstance(kind, inspect.DictType | inspect.StructType):
        return json.loads(value)
    return value


def _flag(text: str) -> bool:
    if text.lower() not in FLAGS:
        raise ValueError(text)
    return FLAGS[text.lower()]


def _items(text: str) -> Any:
    return json.loads(text) if text.lstrip().startswith("[") else text.split()


# -- what is wrong


def fault(value: Any, kind: inspect.Type, hint: Any) -> str:
    """Returns what is wrong with a value, to be read after "name=value"; "" if nothing is."""
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        pass
    else:
        return ""
    kinds = list(members(kind))
    if isinstance(value, int | float) and not isinstance(value, bool):
        for member in kinds:
            is_for_it = isinstance(member, inspect.FloatType) or (
                isinstance(member, inspect.IntType) and isinstance(value, int)
            )
            if is_for_it and (bounds := _bounds(member)):
                return f" is out of range: use {bounds}"
    if len(kinds) == 1 and _is_list(kinds[0]):
        return _fault_of_list(value, kinds[0])
    choices = [repr(choice) for member in kinds if isinstance(member, inspect.LiteralType) for choice in member.values]
    if choices and len(kinds) == 1:
        return f": choose {_or(kinds[0].values)}"  # type: ignore[attr-defined]
    return f" must be {_or([_describe(member) for member in kinds])}"


def _fault_of_list(value: Any, kind: Any) -> str:
    if isinstance(value, list):
        inner = list(members(kind.item_type))
        if len(inner) == 1 and isinstance(inner[0], inspect.LiteralType):
            return f": choose from {_and(inner[0].values)}"
    return f" must be {_describe(kind)}"


def _describe(kind: Any) -> str:
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType):
        return "a whole number" + (f", {bounds}" if (bounds := _bounds(kind)) else "")
    if isinstance(kind, inspect.FloatType):
        return A_DURATION + (f", {bounds}" if (bounds := _bounds(kind)) else "")
    if isinstance(kind, inspect.StrType):
        if kind.pattern == "^(/.*)?$":
            return "a path that begins with a slash"
        least = f" of {kind.min_length} or more characters" if (kind.min_length or 0) > 1 else ""
        return "a text" + (least or (" that is not empty" if kind.min_length else ""))
    if isinstance(kind, inspect.LiteralType):
        return _or(kind.values)
    if isinstance(kind, inspect.StructType | inspect.DictType):
        return "a table"
    if _is_list(kind):
        inner = list(members(kind.item_type))
        if len(inner) == 1 and isinstance(inner[0], inspect.StructType):
            return "a list of tables"
        if len(inner) == 1 and isinstance(inner[0], inspect.LiteralType):
            return f"a list of {_and(inner[0].values)}"
        return "a list of " + ("whole numbers" if isinstance(inner[0], inspect.IntType) else "texts")
    return "another value"


def _bounds(kind: Any) -> str:
    least = kind.ge if kind.ge is not None else kind.gt
    most = kind.le if kind.le is not None else kind.lt
    if least is None:
        return f"up to {most:,}" if most is not None else ""
    if kind.ge is None:
        return f"more than {least:,}" + (f" and up to {most:,}" if most is not None else "")
    return f"{least:,} or more" if most is None else f"{least:,} to {most:,}"


def _or(names: Any) -> str:
    return _joined(names, "or")


def _and(names: Any) -> str:
    return _joined(names, "and")


def _joined(names: Any, word: str) -> str:
    *others, last = map(str, names)
    return f"{', '.join(others)} {word} {last}" if others else last


def nearest(name: str, known: Any) -> str:
    """How to go on after a name that is not known: the one that was meant, or all that there are."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(sorted(known))}"


def shown(value: Any) -> str:
    """A value for people to read, as TOML would have it, more or less."""
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {shown(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
