"""SIGHUP: the configuration is read again, and what may change while the server runs is changed."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

import click

from ..errors import ConfigurationError
from ..server import Server
from . import logs, notify
from .settings import SECTIONS, Settings, TopLevel
from .tls import Certificates

__all__ = ["LIVE", "Rereading", "changes", "failing_softly"]

logger = logging.getLogger("fastws.command")

LIVE = {"origins", "[[channels]]", "[api] keys", "[log] level", "[log] access"}


class Rereading:
    """The settings that a running server goes by."""

    def __init__(
        self, server: Server, settings: Settings, certificates: Certificates | None, load: Callable[[], Settings]
    ) -> None:
        self._server = server
        self._settings = settings
        self._certificates = certificates
        self._load = load

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read again at each SIGHUP; look at the certificate's files once a minute."""
        loop.add_signal_handler(signal.SIGHUP, self._on_signal)
        if self._certificates is not None:
            self._certificates.watch(loop)

    def _on_signal(self) -> None:
        notify.reloading()
        self.again()
        notify.ready("the configuration was read again")

    def again(self) -> None:
        """Read the configuration. What is wrong with it is a line in the log, and the old one stays."""
        with failing_softly():
            self._apply(self._load())

    def _apply(self, settings: Settings) -> None:
        """Change all that may change, or nothing; raises ConfigurationError."""
        old = self._settings
        if self._certificates is not None:
            self._certificates.check()
        if settings.top.target is None and old.top.target is None:
            from ..standalone import reconfigure

            reconfigure(self._server, settings)
        if settings.options.get("origins") != old.options.get("origins"):
            self._server.reconfigure(origins=settings.options.get("origins"))
        if self._certificates is not None:
            self._certificates.load_again()
        logs.set_levels(settings.log or logs.LogSettings())
        self._settings = settings
        changed = list(changes(old, settings))
        fixed = [name for name in changed if name not in LIVE]
        done = [name for name in changed if name in LIVE]
        logger.log(
            logging.WARNING if fixed else logging.INFO,
            "the configuration was read again: %s changed%s",
            ", ".join(done) or "nothing",
            f"; a restart is needed for {', '.join(fixed)}" if fixed else "",
        )


@contextlib.contextmanager
def failing_softly() -> Iterator[None]:
    """What is wrong with a configuration is a line in the log."""
    try:
        yield
    except (click.ClickException, ConfigurationError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        logger.error("the old settings stay: %s", message.replace("\nfastws: ", "; "))


def changes(old: Settings, new: Settings) -> Iterator[str]:
    """What is not as it was, as people would write it."""
    for name in sorted(old.options.keys() | new.options.keys()):
        if old.options.get(name) != new.options.get(name):
            yield name
    for name in TopLevel.__struct_fields__:
        if getattr(old.top, name) != getattr(new.top, name):
            yield name
    for name in SECTIONS:
        was, now = getattr(old, name), getattr(new, name)
        if name == "channels":
            if was != now:
                yield "[[channels]]"
        elif was is not None and now is not None:
            yield from _fields(name, was, now)
        elif name == "log":
            yield from _fields(name, was or logs.LogSettings(), now or logs.LogSettings())
        elif was is not now:
            yield f"[{name}]"


def _fields(name: str, was: Any, now: Any) -> Iterator[str]:
    for field in was.__struct_fields__:
        if getattr(was, field) != getattr(now, field):
            yield f"[{name}] {field}"
