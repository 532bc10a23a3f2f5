"""A peer's process: started on a core of its own, measured from /proc, and gone at the end whatever happens."""

import ctypes
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from bench import machine

ROOT = Path(__file__).parent.parent
START_TIMEOUT = 20
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class StartError(Exception):
    """A peer did not come up; says why."""


class Server:
    """`with Server(peer, cores={0}) as server:` runs the peer on a free port of 127.0.0.1."""

    def __init__(self, peer, cores, arguments=()):
        self.peer, self.cores, self.arguments = peer, cores, list(arguments)
        self.port = free_port()

    def __enter__(self):
        command = [*self.peer.command, "--port", str(self.port), *self.arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=self.settle_in
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
        self.process.wait()
        self.process.stdout.close()

    def wait_until_ready(self):
        output, deadline = [], time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not select.select([self.process.stdout], [], [], 0.1)[0]:
                continue
            line = self.process.stdout.readline()
            if line.startswith("ready"):
                return
            if not line:
                break
            output.append(line.strip())
        raise StartError(output[-1] if output else f"not ready after {START_TIMEOUT} s")

    @property
    def running(self):
        return self.process.poll() is None

    def cpu(self):
        """Seconds of CPU that all its threads have used. The process's clock is exact; /proc/PID/stat has 10 ms steps."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # clock_getcpuclockid(3)

    def memory(self):
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
