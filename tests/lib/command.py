"""`fastws serve` as a process of its own, and an application for it."""

import re
import subprocess
import sys
from contextlib import contextmanager

TIMEOUT = 10
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


def run(*arguments, command=COMMAND):
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)


@contextmanager
def serving(*arguments, command=COMMAND, **options):
    """A server's process and what it said first; `options` are Popen's."""
    process = subprocess.Popen(
        [*command, "serve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    with process:
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def port_of(line):
    return int(re.search(r"http://127\.0\.0\.1:(\d+)", line)[1])
