"""How long fastws takes to write one message to 9,000 sockets that nobody reads, by number of flush threads."""

import fcntl
import struct
import termios
import time
from statistics import median

from bench.scenarios import Figure, Scenario

CLIENTS = 9_000
MESSAGES = 30
MESSAGE_BYTES = 64
FRAME_BYTES = MESSAGE_BYTES + 2
STRIDE = 128  # every 128th socket is watched: watching all would use the core that the flush needs
TIMEOUT_SECONDS = 5
POLL_SECONDS = 0.0005


def run(session, threads):
    clients = session.connect(["/ws/bench"] * CLIENTS)
    session.load.stop_reading(clients)
    stream = session.load.add_stream(clients[:1], clients, size=MESSAGE_BYTES, window=1)
    watched = session.load.sockets[::STRIDE]
    times = [time_message(session.load, stream, count, watched) for count in range(1, MESSAGES + 1)]
    yield f"{threads} threads", {"ms": median(times) * 1e3}


def time_message(load, stream, count, watched):
    """Returns the seconds from sending the message until it is in every socket, as the `count`-th one there."""
    load.widen(stream, count)
    start = time.monotonic()
    load.run(0)
    for client in watched:
        while unread(client) < count * FRAME_BYTES:
            time.sleep(POLL_SECONDS)
            if time.monotonic() - start > TIMEOUT_SECONDS:
                raise TimeoutError(f"message {count} did not reach every socket within {TIMEOUT_SECONDS} s")
    return time.monotonic() - start


def unread(client):
    return struct.unpack("i", fcntl.ioctl(client, termios.FIONREAD, b"\0\0\0\0"))[0]


SCENARIO = Scenario(
    name="threads",
    title="Flush threads",
    figures=(Figure("ms", "ms per message", 1),),
    setups=lambda quick, most: (1, 2),
    run=run,
    lower_is_better=True,
    clients=lambda threads: CLIENTS,
    peer="fastws",
    arguments=lambda threads: ("--flush-threads", str(threads)),
    spread_out=True,
)
