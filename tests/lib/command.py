"""`fastws serve` in a separate process, and an application for it."""

import re
import subprocess
import sys
from contextlib import contextmanager

TIMEOUT = 30  # seconds; nothing takes this long, even on a busy machine
COMMAND = [sys.executable, "-m", "fastws"]
APP = """
from fastws import Listener, Server

class Echo(Listener):
    def on_message(self, ws, message):
        return message

def create():
    server = Server(port=0)
    server.endpoint("/echo", Echo())
    return server

class group:
    server = create()

number = 5

def needs(something): ...
"""

# What a service manager does between fork and exec: the socket becomes descriptor 3, and the variables are set.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def run(*arguments, command=COMMAND):
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)


@contextmanager
def serving(*arguments, command=COMMAND, subcommand="serve", **options):
    """A server's process and the first line it printed; `options` are Popen's."""
    process = subprocess.Popen(
        [*command, subcommand, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    with process:
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def port_of(line):
    return int(re.search(r"http://127\.0\.0\.1:(\d+)", line)[1])


def activated(fd):
    """The command as systemd would start it with that descriptor."""
    return [sys.executable, "-c", ACTIVATE, str(fd), *COMMAND[1:]]
