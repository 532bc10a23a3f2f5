"""Dead peers: a stopped process, and a thousand handshakes that never end."""

import asyncio
import signal
import socket
import sys

from fastws.testing import connect

from ..lib.raw import TIMEOUT, request
from ..lib.support import Echo, Recorder, eventually, nothing_left

# A real client in a separate process, which echoes.
CLIENT = """
import sys
from websockets.sync.client import connect

with connect(sys.argv[1]) as client:
    for message in client:
        client.send(message)
"""


async def test_a_stopped_process_is_found_by_ping_and_harms_nobody(serve, join):
    site = await serve(recorder := Recorder(), ping_interval=0.3, ping_timeout=2)
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, f"{site.url}/ws/cars")
    try:
        await recorder.until("on_subscribe")
        site.manager.broadcast("cars", "are you there?")
        assert await recorder.until("on_message") == ("are you there?",)
        client.send_signal(signal.SIGSTOP)
        # Its kernel still accepts data: only a pong shows that the process is alive.
        assert (await recorder.until("on_close"))[0] == 1006
        async with connect(f"{site.url}/ws/cars") as other:
            assert site.manager.broadcast("cars", "hello") == 1
            assert await other.receive() == "hello"
    finally:
        client.kill()
        await client.wait()
    await eventually(lambda: nothing_left(site))


async def test_a_thousand_half_handshakes_delay_nobody_and_end_with_408(serve):
    site = await serve(Echo(), handshake_timeout=6)
    head = request("/ws/cars")
    halves = []
    try:
        for _ in range(1000):
            half = socket.create_connection(("127.0.0.1", site.server.port))
            halves.append(half)
            half.setblocking(False)
            half.send(head[:10])
        for at in range(10, 20):  # they continue slowly while others come, talk and go
            for half in halves:
                half.send(head[at : at + 1])
            async with connect(f"{site.url}/ws/cars") as client:
                await client.send("hi")
                assert await client.receive() == "hi"
        loop = asyncio.get_running_loop()
        for half in halves:
            async with asyncio.timeout(TIMEOUT):
                assert (await loop.sock_recv(half, 100)).startswith(b"HTTP/1.1 408 ")
    finally:
        for half in halves:
            half.close()
    await eventually(lambda: nothing_left(site))
