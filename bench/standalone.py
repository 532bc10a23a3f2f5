"""What an idle connection of `fastws serve` takes: python -m bench.standalone [CONNECTIONS].

Bytes of the server's memory (RSS) for each connection, with a browser's request head of about 700 bytes: of a plain
endpoint in a channel, and of fastws.v1 that has said hello and is in one channel, without and with a user.
"""

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from fastws import Listener, Server
from fastws.access.rules import ChannelRule
from fastws.access.tokens import AuthSettings, make_token
from fastws.command.running import spare_what_is_here_to_stay
from fastws.command.settings import Settings
from fastws.standalone import create_server

AUTH = AuthSettings(secret="a secret of the benchmark, of 32 bytes or more")
RULE = ChannelRule(pattern="*", subscribe="anyone", publish="member")
HELLO = json.dumps({"type": "hello", "version": 1, "channels": {"cars": None}}).encode()
PADDING = "x" * 480
KINDS = ["plain", "v1", "v1 with a token"]


def server_of(kind: str) -> Server:
    """The server that is measured."""
    if kind == "plain":
        server = Server(port=0)
        server.endpoint("/ws/{channel}", Listener())
        return server
    return create_server(Settings(options={"port": 0}, channels=(RULE,), auth=AUTH))


async def serve(kind: str) -> None:
    """Tell the port, then for each line of the standard input how much memory is in use."""
    async with server_of(kind) as server:
        spare_what_is_here_to_stay()
        print(server.port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            gc.collect()
            print(bytes_in_use(), flush=True)


def bytes_in_use() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connect(port: int, kind: str) -> socket.socket:
    """A connection in the channel `cars`."""
    offered = f", bearer, {make_token(AUTH, 'ann', ttl=3600)}" if kind == KINDS[2] else ""
    path = "/ws/cars" if kind == "plain" else "/ws"
    head = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Protocol: fastws.v1{offered}\r\nX-Padding: {PADDING}\r\n\r\n"
    )
    ws = socket.create_connection(("127.0.0.1", port))
    ws.sendall(head.encode())
    until(ws, b"\r\n\r\n")
    if kind != "plain":
        ws.sendall(bytes([0x81, 0x80 | len(HELLO), 0, 0, 0, 0]) + HELLO)
        until(ws, b'"subscribed"')
    return ws


def until(ws: socket.socket, end: bytes) -> None:
    """Read until something has come."""
    received = b""
    while end not in received:
        received += ws.recv(65536)


def measure(kind: str, number: int) -> float:
    """Bytes for each of so many connections, beyond the first 100, which have what is there once."""
    command = [sys.executable, "-m", "bench.standalone", "serve", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def used() -> int:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return int(process.stdout.readline())  # type: ignore[union-attr]

        open_ones = [connect(port, kind) for _ in range(100)]
        before = used()
        open_ones += [connect(port, kind) for _ in range(number)]
        after = used()
        process.kill()
        for ws in open_ones:
            ws.close()
    return (after - before) / number


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
        return
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for kind in KINDS:
        print(f"{kind:>16}: {measure(kind, number):,.0f} bytes for each of {number:,} connections", flush=True)


if __name__ == "__main__":
    main()
