"""The machine: what results depend on besides the code, and how cores are assigned."""

import contextlib
import datetime
import fcntl
import os
import platform
import resource
import subprocess
import tempfile
from pathlib import Path


def describe():
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "compiler": first_line("gcc", "--version"),
        "commit": first_line("git", "describe", "--always", "--dirty"),
    }


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def raise_file_limit():
    """Raise the limit of open files as far as possible. Returns how many clients that allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - 100


def share_cores():
    """Returns one core for the server and the others for the load; the same one if there is only one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


@contextlib.contextmanager
def alone(waiting):
    """Allow only one run at a time on a machine; calls `waiting` if another one has to finish first."""
    with (Path(tempfile.gettempdir()) / "fastws-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pin(cores):
    """Pin this thread to cores, with raised priority if permitted."""
    os.sched_setaffinity(0, cores)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
