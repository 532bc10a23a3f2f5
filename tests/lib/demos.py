"""The demo on several nodes: each a process, one Redis between them."""

import contextlib
import signal

from .chat import SECRET
from .command import port_of, serving


class Demo:
    """One node."""

    def __init__(self, process, port):
        self.process = process
        self.port = port

    def kill(self):
        """As the system does when it is out of memory: nobody is told."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """As at a deploy."""
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def demos(redis, number=3, *arguments):
    """So many nodes, each `fastws demo` on a port of its own."""
    with contextlib.ExitStack() as stack:

        def start():
            options = ["--port", "0", "--backplane", redis.url, "--secret", SECRET, *arguments]
            return Demo(*started(stack.enter_context(serving(*options, subcommand="demo"))))

        yield [start() for _ in range(number)]


def started(served):
    process, line = served
    return process, port_of(line)
