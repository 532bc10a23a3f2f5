"""The HTTP API of a running server, for the commands that use it: which server that is, and with what key."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from ..errors import FastWSError
from .failures import Failure
from .flags import config_flag, loaded, with_flags
from .settings import Settings

if TYPE_CHECKING:
    from ..access.keys import Scope

__all__ = ["Remote", "base_url", "remote_flags"]

ANY = {"", "0.0.0.0", "::"}  # hosts that are all addresses of the machine


def remote_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which server is meant."""
    function = click.option("--key", envvar="FASTWS_KEY", help="an API key  [default: one of the configuration]")(
        function
    )
    function = click.option(
        "--url", envvar="FASTWS_URL", help="where the server is  [default: where the configuration has it]"
    )(function)
    return with_flags(config_flag())(function)


class Remote:
    """The API that a command speaks to; what cannot be done ends the command."""

    def __init__(self, config: Path | None, url: str | None, key: str | None, scope: "Scope") -> None:
        settings = Settings() if url and key else loaded(config, {})
        self.url = url.rstrip("/") if url else base_url(settings, for_api=True)
        self.path = settings.api.path.rstrip("/") if settings.api is not None else "/api"
        self._key = key or _key_of(settings, scope)

    def publisher(self) -> Any:
        from ..publisher import Publisher

        return Publisher(self.url + self.path, self._key)

    def get(self, name: str, query: Mapping[str, Any] | None = None) -> Any:
        """What a GET answers; ends the command where that is an error."""
        try:
            return self.publisher().get(name + (f"?{urlencode(query)}" if query else ""))
        except FastWSError as error:
            raise Failure(f"{self.url}: {error}") from None


def base_url(settings: Settings, *, for_api: bool = False, scheme: str = "http") -> str:
    """Where a server with these settings is reached from this machine, without a path; else ends the command."""
    options = settings.options
    if for_api and settings.api is not None and settings.api.listen:
        return f"http://{settings.api.listen}"
    if options.get("uds") is not None or options.get("fd"):
        raise Failure("the server is on a socket that has no address here: give --url")
    host = options.get("host", "127.0.0.1")
    host = "127.0.0.1" if host in ANY else f"[{host}]" if ":" in host else host
    port = options.get("port", 8765)
    if port == 0:
        raise Failure("the server's port is any free one: give --url, as the server has told it")
    return f"{scheme}{'s' if settings.top.ssl_certfile else ''}://{host}:{port}"


def _key_of(settings: Settings, scope: "Scope") -> str:
    """The first key of the configuration that is for this, and is here in clear."""
    for entry in settings.api.keys if settings.api is not None else ():
        if scope not in entry.allow:
            continue
        if entry.key is not None:
            return str(entry.key)
        if entry.key_file is not None and os.access(entry.key_file, os.R_OK):
            return Path(entry.key_file).read_text().strip()
    raise Failure(f"no key that may {scope} is in the configuration: give --key, or set FASTWS_KEY")
