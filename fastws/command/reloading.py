"""`fastws serve --reload`: the server as a process of its own, started anew whenever Python files change."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ConfigurationError

__all__ = ["serve_reloading"]

logger = logging.getLogger("fastws.reload")

GLANCE = 200  # milliseconds between two looks at the process
PATIENCE = 3.0  # seconds that it has to end, before it is told again, and more rudely
TERMINAL = 1.0  # seconds that it has where a Ctrl-C has told it already


def serve_reloading(descriptors: Sequence[int]) -> None:
    """Run this command without its ``--reload`` again and again, until SIGINT or SIGTERM.

    ``descriptors`` are those of listening sockets to serve on, if any. Raises ConfigurationError where watchfiles is
    not installed.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'fastws-server[reload]'") from None
    stop, child = threading.Event(), Child(descriptors)
    signals: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        if signals:
            child.tell()
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    changes = watch(
        Path.cwd(), watch_filter=PythonFilter(), stop_event=stop, rust_timeout=GLANCE, yield_on_timeout=True
    )
    child_is_told = False
    try:
        for changed in changes:  # the first of them comes when files are watched already
            child.look_after({path for _, path in changed})
        child_is_told = signals[:1] == [signal.SIGINT]  # by the terminal, which tells every process
    finally:
        child.stop(child_is_told)


class Child:
    """The server's process, and what is wrong with the files that it would be started from."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None
        self._broken: set[str] = set()
        self._is_over = False

    def look_after(self, changed: set[str]) -> None:
        """Start it at first, and again when files have changed and can be read as Python."""
        if self._process is None:
            self._start()
        elif changed:
            self._broken = set(self._check(self._broken | changed))
            if not self._broken:
                logger.info("restarting: %s", ", ".join(sorted(map(os.path.relpath, changed))))
                self.stop()
                self._start()
        elif not self._is_over and self._process.poll() is not None:
            self._is_over = True
            logger.warning(
                "the server ended with status %d: it starts again when a file changes", self._process.returncode
            )

    def tell(self) -> None:
        """Have it end."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, is_told: bool = False) -> None:
        """End it, if need be by force; where it has been told, wait a moment first."""
        if self._process is None or (is_told and self._ends(TERMINAL)):
            return
        for end in (self._process.terminate, self._process.terminate, self._process.kill):
            end()
            if self._ends(PATIENCE):
                return

    def _ends(self, timeout: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start(self) -> None:
        command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != "--reload")]
        # Its clients are to come back at once, and it is not to watch files itself, whatever fastws.toml says.
        environment = {**os.environ, "FASTWS_RELOAD": "false", "FASTWS_RESTART": "true"}
        if self._descriptors:
            environment["FASTWS_FD"] = " ".join(map(str, self._descriptors))
        self._is_over = False
        self._process = subprocess.Popen(command, env=environment, pass_fds=self._descriptors)

    @staticmethod
    def _check(paths: Iterable[str]) -> Iterable[str]:
        """Those that are no Python, each logged; one that is gone is fine."""
        for path in paths:
            try:
                source = Path(path).read_bytes()
                with warnings.catch_warnings(action="ignore"):
                    compile(source, os.path.relpath(path), "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                logger.warning("still serving what was there before: %s", error)
                yield path
            except OSError:
                pass
