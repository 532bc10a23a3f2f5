"""What the Python peers share: the command line, and channels for libraries that have none.

Every peer serves the same paths on 127.0.0.1:

    /ws/{channel}        each message goes to all members, including the sender
    /others/{channel}    each message goes to all members except the sender
    /echo                each message goes back
    /collect             the same, after a full garbage collection
    /rooms/{a},{b},...   a member of several channels; a message begins with the number of the channel it is for
    /whisper/{n}         everyone in one channel; a message begins with the number of the ten connections it is for
"""

import argparse
import gc
import ssl
from collections import defaultdict

BACKLOG = 4096
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
GROUP_SIZE = 10  # connections that get each whisper


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--flush-threads", type=int, default=1, help="used only by fastws")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="speak TLS")
    parser.add_argument("--compress", action="store_true", help="compress messages of any size")
    return parser.parse_args()


def tls_context(options):
    """Returns the SSLContext of a server, if it is to speak TLS."""
    if options.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*options.tls)
    return context


def ready(port):
    print(f"ready {port}", flush=True)


def number_of(message):
    """Returns the little-endian uint32 at the start of a message."""
    return int.from_bytes(message[:4], "little")


def collect():
    """Run a full garbage collection."""
    gc.collect()


class Members:
    """Connections by channel."""

    def __init__(self):
        self.channels = defaultdict(set)

    def join(self, path, connection):
        """Join the channels in a path. Returns a function that returns a message's receivers (for an echo, None)."""
        kind, _, name = path.strip("/").partition("/")
        if kind == "echo":
            return None
        if kind == "collect":
            return lambda message: collect() or [connection]
        if kind == "whisper":
            self.channels[int(name) // GROUP_SIZE].add(connection)
            return self.find_numbered
        if kind == "rooms":
            for room in name.split(","):
                self.channels[int(room)].add(connection)
            return self.find_numbered
        members = self.channels[name]
        members.add(connection)
        if kind == "others":
            return lambda message: [member for member in members if member is not connection]
        return lambda message: members

    def find_numbered(self, message):
        return self.channels[number_of(message)]

    def leave(self, connection):
        for members in self.channels.values():
            members.discard(connection)
