"""A port of its own for a part of what is answered over HTTP: for other eyes, and free while the server is full."""

import re

from ..errors import ConfigurationError
from ..server import Server
from .app import Web

__all__ = ["with_own_port"]

ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]*)):([0-9]{1,5})")


def with_own_port(web: Web, section: str, listen: str) -> tuple[Web, Server]:
    """Returns other routes, and the server of these alone, which starts and stops with ``web``.

    Raises ConfigurationError for a ``listen`` of the section that is not host:port.
    """
    match = ADDRESS.fullmatch(listen)
    if match is None or int(match[3]) > 65535:
        raise ConfigurationError(f"[{section}] listen={listen!r} is not host:port: try '127.0.0.1:8766'")
    own = Web()
    server = Server(match[1] or match[2], int(match[3]), http=own)
    web.run_with(server)
    return own, server
