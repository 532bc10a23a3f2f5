"""`fastws serve --reload`: runs the server in a child process, and restarts it whenever Python files change."""

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

from .errors import ConfigurationError

__all__ = ["serve_reloading"]

logger = logging.getLogger("fastws.reload")

POLL_MILLISECONDS = 200  # between checks of the process
STOP_SECONDS = 3.0  # after each signal, before the next and stronger one
CTRL_C_STOP_SECONDS = 1.0  # before the first signal, if Ctrl-C has already reached the process


def serve_reloading(descriptors: Sequence[int]) -> None:
    """Run this command without ``--reload``, and restart it on changes, until SIGINT or SIGTERM.

    ``descriptors`` are those of listening sockets to serve on, if any. Raises ConfigurationError if watchfiles is not
    installed.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ConfigurationError("--reload needs watchfiles: pip install 'fastws-server[reload]'") from None
    stop, child = threading.Event(), Child(descriptors)
    signals: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        if signals:
            child.terminate()
        signals.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    changes = watch(
        Path.cwd(), watch_filter=PythonFilter(), stop_event=stop, rust_timeout=POLL_MILLISECONDS, yield_on_timeout=True
    )
    child_is_told = False
    try:
        for changed in changes:  # the first comes once files are being watched
            child.update({path for _, path in changed})
        child_is_told = signals[:1] == [signal.SIGINT]  # the terminal sends it to every process
    finally:
        child.stop(child_is_told)


class Child:
    """The server's process, and the changed files that are not valid Python."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None
        self._broken: set[str] = set()
        self._is_over = False

    def update(self, changed: set[str]) -> None:
        """Start the process if necessary, and restart it if files have changed and are valid Python."""
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
                "the server exited with status %d; it restarts when a file changes", self._process.returncode
            )

    def terminate(self) -> None:
        """Send it SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, is_told: bool = False) -> None:
        """End it, by force if necessary; if it already got a signal, wait a moment first."""
        if self._process is None or (is_told and self._wait(CTRL_C_STOP_SECONDS)):
            return
        for end in (self._process.terminate, self._process.terminate, self._process.kill):
            end()
            if self._wait(STOP_SECONDS):
                return

    def _wait(self, timeout: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start(self) -> None:
        command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != "--reload")]
        # Its clients should reconnect at once, and it must not watch files itself, whatever fastws.toml says.
        environment = {**os.environ, "FASTWS_RELOAD": "false", "FASTWS_RESTART": "true"}
        if self._descriptors:
            environment["FASTWS_FD"] = " ".join(map(str, self._descriptors))
        self._is_over = False
        self._process = subprocess.Popen(command, env=environment, pass_fds=self._descriptors)

    @staticmethod
    def _check(paths: Iterable[str]) -> Iterable[str]:
        """Yields the files that are not valid Python, and logs them; missing files are fine."""
        for path in paths:
            try:
                source = Path(path).read_bytes()
                with warnings.catch_warnings(action="ignore"):
                    compile(source, os.path.relpath(path), "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                logger.warning("keeping the previous version running: %s", error)
                yield path
            except OSError:
                pass
