"""Path templates, and which of them a request's path means."""

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

from ._core import decode_path
from .errors import ConfigurationError

__all__ = ["Router", "Template"]

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

T = TypeVar("T")


class Template:
    """A path such as ``/ws/chat/{channel}``: segments that are literal, or a parameter in braces.

    Raises ConfigurationError for a template that cannot work. Matching takes raw paths: a parameter is percent-decoded
    after the path was split, so that ``%2F`` is part of a name and no separator. A parameter is never empty.
    """

    def __init__(self, path: str) -> None:
        if not path.startswith("/"):
            raise ConfigurationError(f"path {path!r} does not begin with a slash: try {'/' + path!r}")
        if "?" in path or "#" in path:
            raise ConfigurationError(f"path {path!r} has more than a path: leave out what begins with ? or #")
        self.path = path
        self.names: list[str] = []
        self._segments = path.split("/")
        self._is_parameter = [self._parameter(segment) for segment in self._segments]

    def _parameter(self, segment: str) -> bool:
        match = _PARAMETER.fullmatch(segment)
        if match is None:
            if "{" in segment or "}" in segment:
                raise ConfigurationError(
                    f"path {self.path!r}: {segment!r} is no parameter; write a name in braces as a whole segment"
                )
            return False
        if match[1] in self.names:
            raise ConfigurationError(f"path {self.path!r} has {segment} twice: give each parameter a name of its own")
        self.names.append(match[1])
        return True

    @property
    def shape(self) -> tuple[str | None, ...]:
        """The literal segments, None for parameters: two templates of one shape match the same paths."""
        return tuple(None if p else s for p, s in zip(self._is_parameter, self._segments, strict=True))

    @property
    def rank(self) -> tuple[int, list[bool]]:
        """Sorts the most literal template first, by number of parameters and then from the left."""
        return len(self.names), self._is_parameter

    def match(self, raw_path: str) -> bool:
        """Whether the path, still percent-encoded, is one of this template."""
        segments = raw_path.split("/")
        return len(segments) == len(self._segments) and all(
            segment != "" if parameter else segment == literal or decode_path(segment) == literal
            for segment, literal, parameter in zip(segments, self._segments, self._is_parameter, strict=True)
        )

    def parameters(self, raw_path: str) -> dict[str, str]:
        """The parameters of a path that matches, decoded."""
        segments = raw_path.split("/")
        values = [decode_path(s) for s, parameter in zip(segments, self._is_parameter, strict=True) if parameter]
        return dict(zip(self.names, values, strict=True))


class Router(Generic[T]):
    """Finds what is registered for a path."""

    def __init__(self) -> None:
        self._routes: list[tuple[Template, T]] = []

    def add(self, templates: Iterable[Template], target: T) -> None:
        """Register at all of these; raises ConfigurationError where another template matches the same paths."""
        routes = list(self._routes)
        for template in templates:
            for other, _ in routes:
                if other.shape == template.shape:
                    raise ConfigurationError(f"path {template.path!r} is taken by {other.path!r}: one endpoint a path")
            routes.append((template, target))
        self._routes = sorted(routes, key=lambda route: route[0].rank)

    @property
    def targets(self) -> list[T]:
        """Everything that is registered, once each."""
        return list(dict.fromkeys(target for _, target in self._routes))

    def find(self, raw_path: str) -> tuple[Template, T] | None:
        """The most literal template that matches, with what is registered for it."""
        return next(((template, target) for template, target in self._routes if template.match(raw_path)), None)
