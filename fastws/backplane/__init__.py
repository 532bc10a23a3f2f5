"""Stores that several nodes share, so that they behave as one server."""

from .base import Backplane

__all__ = ["Backplane", "from_url"]


def from_url(url: str) -> Backplane:
    """Returns the store at a URL; raises ConfigurationError for one that there is not."""
    from ..errors import ConfigurationError

    scheme = url.partition("://")[0]
    raise ConfigurationError(f"backplane: {scheme}:// is unknown")
