"""Stores that several nodes share, so that they behave as one server."""

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .base import Backplane

if TYPE_CHECKING:
    from .nats import NATS
    from .redis import Redis

__all__ = ["NATS", "Backplane", "Redis", "from_url"]

REDIS = ["redis", "rediss", "unix", "redis+unix", "sentinel", "sentinels", "redis+cluster", "rediss+cluster"]

#: Where the stores are, by the schemes of their URLs. None is imported before somebody asks for it.
_STORES = {
    **dict.fromkeys(REDIS, (".redis", "Redis")),
    **dict.fromkeys(["nats", "tls"], (".nats", "NATS")),
    "hub": (".hub", "HubClient"),
    "memory": (".memory", "Memory"),
}
#: What stores need beside fastws; the extra has the name of the module.
_EXTRAS = {"hiredis": "redis"}


def from_url(url: str) -> Backplane:
    """Returns the store at a URL; raises ConfigurationError for one that there is not."""
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in _STORES:
        schemes = ", ".join(f"{scheme}://" for scheme in _STORES)
        raise ConfigurationError(f"backplane: {scheme!r} is unknown; a URL begins with one of {schemes}")
    made: Backplane = _load(*_STORES[scheme])() if scheme == "memory" else _load(*_STORES[scheme])(url)
    return made


def _load(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module, __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        fix = f"pip install 'fastws-server[{_EXTRAS[error.name]}]'"
        raise ConfigurationError(f"{name} needs {error.name}: {fix}") from None


def __getattr__(name: str) -> Any:
    for module, known in _STORES.values():
        if name == known and name in __all__:
            return _load(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
