"""Fan-out of Pusher's events, beside soketi: ``python -m bench.pusher --help``.

Connections publish over the HTTP API, each the next as soon as the last is answered; or a member sends client events,
so many of which may be on their way. Every subscriber has to get every event. The peers take turns, round by round,
the server on one core, the load on the other. For soketi: npm install --prefix bench/peers/soketi
"""

import argparse
import hashlib
import hmac
import json
import select
import socket
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from bench import machine
from bench.peers.pusher_server import NAME, SECRET
from bench.server import Server

SOKETI = Path(__file__).parent / "peers" / "soketi"
PEERS = {
    "fastws": [sys.executable, "-m", "bench.peers.pusher_server"],
    "soketi": ["node", str(SOKETI / "server.mjs")],
}
CHANNEL = "private-bench"
EVENT = {"name": "said", "channel": CHANNEL, "data": json.dumps({"text": "x" * 40})}


def sign(text):
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


def post(route, content):
    """A signed request, which may be sent again for ten minutes."""
    body = json.dumps(content)
    path = f"/apps/{NAME}/{route}"
    query = f"auth_key={NAME}&auth_timestamp={time.time():.0f}&auth_version=1.0"
    query += f"&body_md5={hashlib.md5(body.encode()).hexdigest()}"
    signature = sign(f"POST\n{path}\n{query}")
    head = (
        f"POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    )
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def frame(content):
    """A client's text frame of up to 64 KiB, masked by nothing."""
    payload = json.dumps(content).encode()
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
    return b"\x81" + length + bytes(4) + payload


def until(sock, end):
    got = b""
    while end not in got:
        more = sock.recv(1 << 16)
        assert more, got
        got += more
    return got


def subscribe(port):
    """A member of the channel, as clients become one."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"GET /app/{NAME}?protocol=7 HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += f"X-Padding: {'x' * 480}\r\n"  # browsers send 700 bytes
    sock.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    greeting = until(sock, b"activity_timeout").decode("latin-1")
    socket_id = greeting.partition('socket_id\\":\\"')[2].partition("\\")[0]
    auth = f"{NAME}:{sign(f'{socket_id}:{CHANNEL}')}"
    sock.sendall(frame({"event": "pusher:subscribe", "data": {"channel": CHANNEL, "auth": auth}}))
    until(sock, b"subscription_succeeded")
    sock.setblocking(False)
    return sock


class Load:
    """Subscribers, and whoever publishes, in one loop."""

    def __init__(self, port, subscribers, flight, events):
        self.members = {sock.fileno(): sock for sock in (subscribe(port) for _ in range(subscribers))}
        self.flight, self.events = flight, events
        self.poll = select.epoll()
        for number in self.members:
            self.poll.register(number, select.EPOLLIN)

    def close(self):
        for sock in self.members.values():
            sock.close()
        self.poll.close()

    def receive(self, timeout):
        """Bytes that have come to members, and the others that have something."""
        received, others = 0, []
        for number, _ in self.poll.poll(timeout):
            if number in self.members:
                received += len(self.members[number].recv(1 << 20))
            else:
                others.append(number)
        return received, others

    def drain(self, wanted):
        """Wait for so many bytes."""
        while wanted > 0:
            received, _ = self.receive(10)
            assert received, f"{wanted} bytes never came"
            wanted -= received

    def size(self, send, receivers):
        """Bytes of an event as a member gets it."""
        send()
        time.sleep(0.3)
        received, _ = self.receive(0)
        while more := self.receive(0)[0]:
            received += more
        size, rest = divmod(received, receivers)
        assert not rest, (received, receivers)
        return size


class Posting(Load):
    """The backend publishes. soketi closes the connection after each answer, so it gets a new one for each."""

    def __init__(self, port, subscribers, flight, content, events):
        super().__init__(port, subscribers, flight, events)
        self.port, self.content = port, content
        self.publishers = {}
        self.bytes = self.size(self.post, subscribers * events)
        for sock in list(self.publishers.values()):
            self.answered(sock)

    def post(self, sock=None):
        """Publish, on a connection that is kept or a new one."""
        if sock is None:
            sock = socket.create_connection(("127.0.0.1", self.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.publishers[sock.fileno()] = sock
            self.poll.register(sock.fileno(), select.EPOLLIN)
        sock.sendall(self.content)

    def answered(self, sock):
        """Read an answer; returns the connection, if it stays."""
        answer = until(sock, b"}")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        if b"Connection: close" not in answer:
            return sock
        self.poll.unregister(sock.fileno())
        del self.publishers[sock.fileno()]
        sock.close()
        return None

    def run(self, seconds):
        """Returns (events, seconds)."""
        begin = time.perf_counter()
        kept = [*self.publishers.values()]
        for number in range(self.flight):
            self.post(kept[number] if number < len(kept) else None)
        waiting = sent = self.flight
        received = 0
        while waiting:
            came, answered = self.receive(10)
            received += came
            is_over = time.perf_counter() - begin > seconds
            for number in answered:
                sock = self.answered(self.publishers[number])
                if is_over:
                    waiting -= 1
                else:
                    self.post(sock)
                    sent += 1
        self.drain(sent * self.events * len(self.members) * self.bytes - received)
        return sent * self.events, time.perf_counter() - begin

    def close(self):
        super().close()
        for sock in self.publishers.values():
            sock.close()


class Talking(Load):
    """A member sends to all the others."""

    def __init__(self, port, subscribers, flight, content, events):
        super().__init__(port, subscribers, flight, events)
        self.content = content
        self.speaker = subscribe(port)
        self.bytes = self.size(lambda: self.speaker.send(content), subscribers)

    def run(self, seconds):
        """Returns (events, seconds)."""
        begin = time.perf_counter()
        sent = received = 0
        each = len(self.members) * self.bytes
        while time.perf_counter() - begin < seconds:
            free = self.flight - (sent - received // each)
            if free > 0:
                self.speaker.send(self.content * free)
                sent += free
            received += self.receive(10)[0]
        self.drain(sent * each - received)
        return sent, time.perf_counter() - begin

    def close(self):
        super().close()
        self.speaker.close()


def idle(command, number):
    """Bytes of the server's memory for each of so many members, beyond the first 200, which have what is there once."""
    with Server(SimpleNamespace(command=command), machine.share_cores()[0]) as server:
        members = [subscribe(server.port) for _ in range(200)]
        before = server.memory()
        members += [subscribe(server.port) for _ in range(number)]
        after = server.memory()
        for sock in members:
            sock.close()
    return (after - before) / number


def cases():
    client_event = frame({"event": "client-said", "channel": CHANNEL, "data": {"text": "x" * 40}})
    return {
        "HTTP, 1 in flight": (Posting, 1, post("events", EVENT), 1),
        "HTTP, 16 in flight": (Posting, 16, post("events", EVENT), 1),
        "HTTP, 16 batches of 10 in flight": (Posting, 16, post("batch_events", {"batch": [EVENT] * 10}), 10),
        "client events, 1 in flight": (Talking, 1, client_event, 1),
        "client events, 64 in flight": (Talking, 64, client_event, 1),
    }


def measure(command, options, case):
    """Deliveries a second, and CPU microseconds of the server for each."""
    load, flight, content, events = case
    server_cores, load_cores = machine.share_cores()
    with Server(SimpleNamespace(command=command), server_cores) as server:
        machine.pin(load_cores)
        running = load(server.port, options.subscribers, flight, content, events)
        running.run(0.2)  # only warms up
        cpu, own = server.cpu(), time.process_time()
        sent, seconds = running.run(options.seconds)
        cpu, own = server.cpu() - cpu, time.process_time() - own
        running.close()
    deliveries = sent * options.subscribers
    return deliveries / seconds, 1e6 * cpu / deliveries, own / seconds


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.pusher", description="Fan-out of Pusher's events.")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured in each round (1)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown (3)")
    parser.add_argument("--subscribers", type=int, default=1000, help="of the channel (1,000)")
    options = parser.parse_args()
    machine.raise_file_limit()
    peers = {name: command for name, command in PEERS.items() if name != "soketi" or (SOKETI / "node_modules").is_dir()}
    for key, value in machine.describe().items():
        print(f"{key}: {value}")
    for peer, command in peers.items():
        print(f"{peer}: {idle(command, 4000):,.0f} bytes for each idle member")
    for name, case in cases().items():
        rounds = {peer: [] for peer in peers}
        for _ in range(options.rounds):
            for peer, command in peers.items():
                rounds[peer].append(measure(command, options, case))
        for peer, found in rounds.items():
            rate, cpu, busy = (statistics.median(each) for each in zip(*found, strict=True))
            print(
                f"{name}: {peer}: {rate:,.0f} deliveries/s, {cpu:.2f} us of CPU each, load busy {busy:.2f}", flush=True
            )
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(*rounds.values(), strict=True)] if len(peers) > 1 else []
        if ratios:
            print(f"{name}: fastws / soketi {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})")


if __name__ == "__main__":
    main()
