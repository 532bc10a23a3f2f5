"""What a result depends on beside the code: for the header of the results."""

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
    """As many open files as may be had; returns how many clients that allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - 100


def share_cores():
    """One core for the server and the others for the load; the same one where there is no other."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


@contextlib.contextmanager
def alone(waiting):
    """Only one run at a time on a machine; calls `waiting` when there is another to wait for."""
    with (Path(tempfile.gettempdir()) / "fastws-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pin(cores):
    """This thread to these cores, before others where that is allowed."""
    os.sched_setaffinity(0, cores)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
