"""What the HTTP API takes on one core, and what that does to somebody else: ``python -m bench.api --help``.

Keep-alive connections publish, each the next as soon as the last is answered; a channel with so many subscribers gets
it. One WebSocket more sends an echo at a time: its delay is what a burst of the API costs others.
"""

import argparse
import json
import select
import socket
import sys
import time
from types import SimpleNamespace

from bench import machine
from bench.peers.api_server import KEY
from bench.server import Server

FRAME = b"\x81\x88\0\0\0\0" + b"0123456789abcdef"[:8]  # masked by nothing
ECHO_SIZE = 10


def request(path, body):
    content = json.dumps(body).encode()
    head = f"POST /api{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def websocket(port, path):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    sock.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    sock.setblocking(False)
    return sock


class Load:
    """Publishers, subscribers, and one echo, in one loop; the echo is looked at first."""

    def __init__(self, port, publishers, subscribers, content, pause):
        self.port, self.content, self.pause = port, content, pause
        self.poll = select.epoll()
        self.echo = websocket(port, "/echo")
        self.subscribers = [websocket(port, "/raw/bench") for _ in range(subscribers)]
        self.publishers = {}
        for _ in range(publishers):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self.publishers[sock.fileno()] = sock
        self.others = {sock.fileno(): sock for sock in self.subscribers}
        for sock in (self.echo, *self.subscribers, *self.publishers.values()):
            self.poll.register(sock, select.EPOLLIN)

    def run(self, seconds):
        delays, answered, received = [], 0, 0
        begin = now = time.perf_counter()
        end = begin + seconds
        sent_at = begin
        self.echo.send(FRAME)
        is_out, next_at = True, 0.0
        partial = dict.fromkeys(self.publishers, b"")
        for sock in self.publishers.values():
            sock.send(self.content)
        while now < end:
            events = dict(self.poll.poll(0.001))
            now = time.perf_counter()
            if self.echo.fileno() in events:
                assert len(self.echo.recv(4096)) == ECHO_SIZE
                delays.append(now - sent_at)
                is_out, next_at = False, now + self.pause
            if not is_out and now >= next_at:
                sent_at = time.perf_counter()
                self.echo.send(FRAME)
                is_out = True
            for number in events:
                if number in self.others:
                    received += len(self.others[number].recv(1 << 20))
                elif number in self.publishers:
                    got = partial[number] + self.publishers[number].recv(1 << 16)
                    if got.endswith(b"}"):
                        assert got.startswith(b"HTTP/1.1 200"), got
                        answered += 1
                        self.publishers[number].send(self.content)
                        got = b""
                    partial[number] = got
        return answered, now - begin, sorted(delays), received

    def close(self):
        for sock in (self.echo, *self.subscribers, *self.publishers.values()):
            sock.close()
        self.poll.close()


def measure(name, content, each, options, arguments=()):
    server_cores, load_cores = machine.share_cores()
    peer = SimpleNamespace(command=[sys.executable, "-m", "bench.peers.api_server"])
    best = None
    with Server(peer, server_cores, arguments) as server:
        machine.pin(load_cores)
        load = Load(server.port, options.connections, options.subscribers, content, options.echo_pause)
        load.run(0.3)
        load.close()
        for _ in range(options.rounds):
            load = Load(server.port, options.connections, options.subscribers, content, options.echo_pause)
            cpu = server.cpu()
            answered, seconds, delays, _ = load.run(options.seconds)
            used = server.cpu() - cpu
            load.close()
            count = answered * each
            figures = {
                "case": name,
                "publishes_per_s": round(count / seconds),
                "publishes_per_cpu_s": round(count / used) if used else 0,
                "server_busy": round(used / seconds, 2),
                "echo_p50_ms": round(1e3 * delays[len(delays) // 2], 2),
                "echo_p99_ms": round(1e3 * delays[len(delays) * 99 // 100], 2),
                "echo_max_ms": round(1e3 * delays[-1], 2),
                "echoes": len(delays),
            }
            if best is None or figures["publishes_per_s"] > best["publishes_per_s"]:
                best = figures
    return best


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.api", description="The HTTP API on one core.")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured in each round (2)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best is shown (3)")
    parser.add_argument("--connections", type=int, default=32, help="that publish (32)")
    parser.add_argument("--subscribers", type=int, default=1, help="of the channel (1)")
    parser.add_argument("--echo-pause", type=float, default=0.001, help="seconds between two echoes (0.001)")
    parser.add_argument("--only", help="a single case")
    options = parser.parse_args()
    one = {"channel": "bench", "message": {"text": "x" * 40}}
    many = {"commands": [{"broadcast": one}] * 100}
    cases = {
        "no publishes": (request("/broadcast", one), 1),
        "broadcast": (request("/broadcast", one), 1),
        "broadcast, idempotency key": (request("/broadcast", {**one, "key": "k" * 32}), 1),
        "batch of 100": (request("/batch", many), 100),
    }
    for key, value in machine.describe().items():
        print(f"{key}: {value}")
    for name, (content, each) in cases.items():
        if options.only in (None, name):
            given = options if name != "no publishes" else argparse.Namespace(**{**vars(options), "connections": 0})
            print(json.dumps(measure(name, content, each, given) if given.connections or name != "x" else {}))


if __name__ == "__main__":
    main()
