"""Path templates, and the routing of requests to them."""

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

from ._core import decode_path
from .errors import ConfigurationError

__all__ = ["Router", "Template"]

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

T = TypeVar("T")


class Template:
    """A path such as ``/ws/chat/{channel}``: each segment is either literal or a parameter in braces.

    Raises ConfigurationError for a template that cannot work. Raw paths are matched: a parameter is percent-decoded
    after the path has been split, so that ``%2F`` is part of a name, not a separator. A parameter is never empty.
    """

    def __init__(self, path: str) -> None:
        if not path.startswith("/"):
            raise ConfigurationError(f"path {path!r} does not begin with a slash: try {'/' + path!r}")
        if "?" in path or "#" in path:
            raise ConfigurationError(f"path {path!r} contains a query or a fragment: remove ? or # and what follows")
        self.path = path
        self.names: list[str] = []
        self._segments = path.split("/")
        self._is_parameter = [self._parameter(segment) for segment in self._segments]

    def _parameter(self, segment: str) -> bool:
        match = _PARAMETER.fullmatch(segment)
        if match is None:
            if "{" in segment or "}" in segment:
                raise ConfigurationError(
                    f"path {self.path!r}: {segment!r} is not a parameter; write a name in braces as a whole segment"
                )
            return False
        if match[1] in self.names:
            raise ConfigurationError(f"path {self.path!r} has {segment} twice: give each parameter its own name")
        self.names.append(match[1])
        return True

    @property
    def shape(self) -> tuple[str | None, ...]:
        """The literal segments, None for parameters: two templates with the same shape match the same paths."""
        return tuple(None if p else s for p, s in zip(self._is_parameter, self._segments, strict=True))

    @property
    def rank(self) -> tuple[int, list[bool]]:
        """Sorts the most literal template first, by number of parameters and then from the left."""
        return len(self.names), self._is_parameter

    def match(self, raw_path: str) -> bool:
        """Returns whether a path, still percent-encoded, matches this template."""
        segments = raw_path.split("/")
        return len(segments) == len(self._segments) and all(
            segment != "" if parameter else segment == literal or decode_path(segment) == literal
            for segment, literal, parameter in zip(segments, self._segments, self._is_parameter, strict=True)
        )

    def parameters(self, raw_path: str) -> dict[str, str]:
        """Returns the decoded parameters of a matching path."""
        segments = raw_path.split("/")
        values = [decode_path(s) for s, parameter in zip(segments, self._is_parameter, strict=True) if parameter]
        return dict(zip(self.names, values, strict=True))


class Router(Generic[T]):
    """Finds the target that is registered for a path."""

    def __init__(self) -> None:
        self._routes: list[tuple[Template, T]] = []
        #: The template and the target of what no other route matches; `find` does not look here.
        self.otherwise: tuple[Template, T] | None = None

    def add(self, templates: Iterable[Template], target: T) -> None:
        """Register a target with all templates; raises ConfigurationError if another one matches the same paths."""
        routes = list(self._routes)
        for template in templates:
            for other, _ in routes:
                if other.shape == template.shape:
                    raise ConfigurationError(f"path {template.path!r} is taken by {other.path!r}: use another path")
            routes.append((template, target))
        self._routes = sorted(routes, key=lambda route: route[0].rank)

    @property
    def targets(self) -> list[T]:
        """All registered targets, once each."""
        rest = [] if self.otherwise is None else [self.otherwise]
        return list(dict.fromkeys(target for _, target in [*self._routes, *rest]))

    def find(self, raw_path: str) -> tuple[Template, T] | None:
        """Returns the most literal template that matches, and its target."""
        return next(((template, target) for template, target in self._routes if template.match(raw_path)), None)
