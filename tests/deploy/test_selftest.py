"""fastws.selftest() tells whether what is installed works; tests/house/test_package.py runs it from a wheel."""

import os
import subprocess
import sys
from pathlib import Path

import fastws

from ..lib.command import TIMEOUT, run

WORKS = "echo, broadcast to 128, compression, TLS: all right"


def python(code, folder):
    environment = {**os.environ, "PYTHONPATH": str(Path(fastws.__file__).parent.parent)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def test_it_says_in_one_sentence_what_works():
    assert fastws.selftest().startswith(WORKS)


def test_the_command_says_of_which_fastws_as_well():
    first, second = run("selftest").stdout.splitlines()
    assert first.startswith(f"fastws {fastws.__version__} with ")
    assert second.startswith(WORKS)


async def test_it_works_where_a_loop_runs():
    assert fastws.selftest().startswith(WORKS)


# Enough descriptors for an echo, but not for a broadcast.
TOO_FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
"""


def test_it_names_what_does_not_work(tmp_path):
    done = python(f"{TOO_FEW}\nimport fastws\nfastws.selftest()", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fastws.errors.FastWSError: selftest: broadcast to 128: ")
    assert "Too many open files" in last


def test_the_command_ends_with_2_where_something_does_not_work(tmp_path):
    code = f"{TOO_FEW}\nimport sys\nfrom fastws.command.main import main\nsys.argv[1:] = ['selftest']\nmain()"
    done = python(code, tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("fastws: selftest: broadcast to 128: ")


# os.fork() itself warns of threads from Python 3.12 on.
FORKED = """
import os, warnings, fastws
print(fastws.selftest(), flush=True)
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    try:
        print(fastws.selftest(), flush=True)
    finally:
        os._exit(0)
os.waitpid(child, 0)
"""


def test_a_process_that_was_forked_from_a_server_serves_too(tmp_path):
    """libgomp would wait forever for the threads of its parent."""
    done = python(FORKED, tmp_path)
    assert [line.startswith(WORKS) for line in done.stdout.splitlines()] == [True, True]
    assert "flush_threads: 1 instead of 2" in done.stderr
