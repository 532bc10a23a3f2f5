"""Logs: their level, as text or as JSON, and a line for each handshake and each close."""

import logging
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ..errors import ConfigurationError

__all__ = ["LogSettings", "set_up"]

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
Format: TypeAlias = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Of a record, what a line of JSON has besides its time; the last six only where the record carries them.
RECORD = {"levelname": "level", "name": "logger", "message": "message"}
CARRIED = ("request_id", "status", "remote_address", "user", "endpoint", "code")


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged to stderr, and how."""

    level: Annotated[Level | None, Meta(description="lowest level that is logged; by default warning")] = None
    format: Annotated[Format, Meta(description="lines as text, or each a JSON object")] = "text"
    access: Annotated[bool, Meta(description="whether each handshake and each close is a line")] = False


def set_up(settings: LogSettings) -> None:
    """Log to stderr as the settings say; an application that has handlers of its own keeps them.

    Raises ConfigurationError where python-json-logger is missing.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_json() if settings.format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(handlers=[handler])
    set_levels(settings)


def set_levels(settings: LogSettings) -> None:
    """Set what may change while the server runs."""
    if settings.level is not None:
        logging.getLogger("fastws").setLevel(settings.level.upper())
    logging.getLogger("fastws.access").setLevel(logging.INFO if settings.access else logging.WARNING)


def _json() -> logging.Formatter:
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ImportError:
        raise ConfigurationError(
            "[log] format='json' needs python-json-logger: pip install 'fastws-server[server]'"
        ) from None
    return JsonFormatter([*RECORD, "asctime"], rename_fields={**RECORD, "asctime": "time"})
