"""Several nodes of a peer and their Redis: what scenarios with more than one node work with."""

import contextlib
import os
import re
import select
import socket
import struct
import time
from dataclasses import replace

from bench.backplane import redis_server, used_by_redis
from bench.server import Server
from bench.session import run_delay

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)
READ_SIZE = 1 << 18
TIMEOUT_SECONDS = 30
SETTLING_SECONDS = 1.0  # in which the last messages arrive, if nothing else does
STAMP = re.compile(rb"\d{20}")  # nanoseconds of the monotonic clock
NANOSECONDS = 1_000_000_000


class Nodes:
    """`with Nodes(peer, ...) as nodes`: `nodes.start(...)` starts one more; all end with it."""

    def __init__(self, peer, server_cores, load_cores, seconds):
        self.peer, self.seconds = peer, seconds
        self.server_cores, self.load_cores = server_cores, load_cores
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stack.close()

    def redis(self):
        """Start a Redis server beside the load. Returns its URL, and what tells its CPU time in seconds."""
        url = self.stack.enter_context(redis_server())
        return url, used_by_redis(url)

    def start(self, *arguments, module="", cores=None):
        """Start a node, on the server's cores if no others are given; `module` is another one than the peer's."""
        peer = replace(self.peer, module=module) if module else self.peer
        return self.stack.enter_context(Node(peer, cores or self.server_cores, arguments))

    def stop(self):
        """Stop all nodes, and Redis."""
        self.stack.close()


class Node(Server):
    """A node that says something when it is asked to (see `bench.peers.saying`)."""

    answers = 0

    def begin_to_say(self, rate, seconds):
        """Have it say so many messages a second."""
        self.process.stdin.write(f"{rate} {seconds}\n".encode())
        self.process.stdin.flush()

    def said(self):
        """Returns how many messages it has said, once it has said all; before that None."""
        answers = re.findall(r"^said (\d+)$", self.read_output(), re.MULTILINE)
        if len(answers) <= self.answers:
            return None
        self.answers = len(answers)
        return int(answers[-1])


class Watch:
    """Sees how long nodes, and this process, have to wait for their cores because of other work on the machine."""

    def __init__(self, *nodes):
        self.processes = [os.getpid(), *(node.process.pid for node in nodes)]
        self.began, self.waits = time.monotonic(), self.now()

    def now(self):
        return [run_delay(process) for process in self.processes]

    def disturbed(self):
        """Returns for which part of the time one of them did."""
        waits = max(after - before for before, after in zip(self.waits, self.now(), strict=True))
        return waits / (time.monotonic() - self.began)


class Members:
    """Connections to a node that receive, and note how long each message was on its way."""

    def __init__(self, port):
        self.port, self.poll, self.sockets, self.rest = port, select.epoll(), {}, {}
        self.heard, self.took = 0, []

    def join(self, peer, channels):
        """Connect one member for each channel."""
        for channel in channels:
            member = connected(self.port, peer.path.format(channel=channel))
            if peer.greeting:
                member.recv(READ_SIZE)
                member.sendall(masked(peer.greeting))
                member.recv(READ_SIZE)
            member.setblocking(False)
            self.sockets[member.fileno()] = member
            self.poll.register(member, select.EPOLLIN)

    def receive(self, seconds):
        """Receive for some time. Returns whether anything came."""
        events = self.poll.poll(seconds)
        for number, _ in events:
            data = self.rest.get(number, b"") + self.sockets[number].recv(READ_SIZE)
            now, end = time.monotonic_ns(), 0
            for stamp in STAMP.finditer(data):
                self.took.append((now - int(stamp[0])) / NANOSECONDS)
                end = stamp.end()
            self.rest[number] = data[max(end, len(data) - 19) :]  # the beginning of a stamp, maybe
        self.heard = len(self.took)
        return bool(events)

    def clear(self):
        """Forget what was heard."""
        self.heard, self.took = 0, []

    def close(self):
        for member in self.sockets.values():
            member.close()
        self.poll.close()


def hear(members, node, rate, seconds, each):
    """Have a node say something. Returns how many messages were said, once members have heard all, `each` so often."""
    members.clear()
    node.begin_to_say(rate, seconds)
    said, last, deadline = None, time.monotonic(), time.monotonic() + seconds + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if members.receive(0.05):
            last = time.monotonic()
        if said is None:
            said = node.said()
        elif members.heard >= said * each or time.monotonic() - last > SETTLING_SECONDS:
            return said
    raise TimeoutError(f"{members.heard:,} messages were heard within {seconds + TIMEOUT_SECONDS:.0f} s")


def connected(port, path, more=""):
    """Returns a socket after its WebSocket handshake."""
    member = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
    member.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    member.sendall(HANDSHAKE.format(path=path, more=more).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = member.recv(1)
        if not byte:
            raise ConnectionError(f"the handshake failed: {head.decode(errors='replace')}")
        head += byte
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(head.partition(b"\r\n")[0].decode(errors="replace"))
    return member


def masked(text):
    """Returns a text frame from a client, masked by zeros."""
    payload = text.encode()
    if len(payload) < 126:
        return b"\x81" + bytes([0x80 | len(payload)]) + bytes(4) + payload
    return b"\x81\xfe" + struct.pack("!H", len(payload)) + bytes(4) + payload


def percentile(values, part):
    """Returns the value below which such a part is, or NaN."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else float("nan")
