"""A peer's process: started on its own core, measured from /proc, and killed at the end whatever happens."""

import ctypes
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench import machine

ROOT = Path(__file__).parent.parent
START_TIMEOUT_SECONDS = 20
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class StartError(Exception):
    """A peer did not start; the message says why."""


class Server:
    """`with Server(peer, cores={0}) as server:` runs the peer on a free port of 127.0.0.1."""

    def __init__(self, peer, cores, arguments=()):
        self.peer, self.cores, self.arguments = peer, cores, list(arguments)
        self.port = free_port()

    def __enter__(self):
        command = [*self.peer.command, "--port", str(self.port), *self.arguments]
        self.output = tempfile.TemporaryFile("w+")  # not a pipe: nobody reads it, and a full one would block the server
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=self.output, stderr=self.output, preexec_fn=self.settle_in
        )
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def settle_in(self):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        machine.pin(self.cores)

    def __exit__(self, *exception):
        self.process.kill()
        self.process.communicate()
        self.output.close()

    def wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if f"ready {self.port}" in self.read_output():
                return
            time.sleep(0.02)
        lines = self.read_output().splitlines()
        raise StartError(lines[-1] if lines else f"not ready after {START_TIMEOUT_SECONDS} s")

    def read_output(self):
        return Path(f"/proc/self/fd/{self.output.fileno()}").read_text(errors="replace")

    def cpu(self):
        """Returns the exact seconds of CPU used by all its threads; /proc/PID/stat has a resolution of 10 ms."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # clock_getcpuclockid(3)

    def memory(self):
        """Returns resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
