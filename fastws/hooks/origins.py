"""Whose pages may bring a visitor's credentials to the backend."""

from urllib.parse import urlsplit

from .._core import Headers

__all__ = ["CREDENTIALS", "is_of_same_host"]

#: What a browser sends by itself, whichever page it is that connects.
CREDENTIALS = {"cookie", "authorization"}


def is_of_same_host(headers: Headers) -> bool:
    """Returns whether a handshake does not come from a page of another host; the port does not matter to cookies."""
    origin = headers.get("origin")
    if origin is None:
        return True  # no browser
    return _name_of(origin) == _name_of(f"//{headers.get('host', '')}") != ""


def _name_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""
