"""Fan-out of JSON to 1,000 clients that all compress, as market data go to browsers.

Every server compresses messages of any size with permessage-deflate, by zlib at level 1 where that can be chosen.
Clients offer what a browser does, send plain messages, and expand and compare what they get. websockets, aiohttp and
Starlette keep a window from message to message: that takes memory for each connection, and leaves fewer bytes to send.
The others keep none; `ws` is faster without.
"""

from dataclasses import replace
from functools import cache
from random import Random

from bench.load import REQUEST
from bench.scenarios import BUSY, CPU, Figure, Scenario, fanout, idle

SETUP = fanout.Setup(1_000, 1_024, (1, 16, 128))
BODIES = 256  # more than a window holds
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
COMPRESSING_REQUEST = REQUEST.removesuffix("\r\n") + OFFER + "\r\n"


@cache
def market_books(size, seed=1):
    """Returns texts of `size` bytes, each the prices and amounts of a book of orders, as JSON."""
    draw = Random(seed)
    return [market_book(draw, number, size) for number in range(BODIES)]


def market_book(draw, number, size):
    middle, time = draw.randrange(60_000_00, 70_000_00), 1_790_000_000_000 + 137 * number
    head = f'{{"type":"book","market":"BTC-EUR","sequence":{9_000_000 + number},"time":{time}'
    sides = {"bids": [], "asks": []}
    left = size - len(head) - len(',"bids":[],"asks":[]}')
    for level in range(size):
        for side, step in (("bids", -1), ("asks", 1)):
            price = (middle + step * (level * 50 + draw.randrange(50))) / 100
            order = f'["{price:.2f}","{draw.expovariate(2):.4f}"]'
            left -= len(order) + 1
            if left >= 0:
                sides[side].append(order)
        if left < 0:
            break
    lists = "".join(f',"{name}":[{",".join(orders)}]' for name, orders in sides.items())
    return f"{head}{lists}}}".encode().ljust(size)


def run(session, setup):
    clients = session.connect(["/ws/bench"] * setup.clients, request=COMPRESSING_REQUEST)
    if session.load.compressing != setup.clients:
        raise ConnectionError(f"only {session.load.compressing} of {setup.clients} clients may compress")
    bodies = market_books(setup.size - 8)
    stream = session.load.add_stream(clients[:1], clients, size=setup.size, window=1, bodies=bodies)
    yield from fanout.in_flight(session, stream, setup)


SCENARIOS = (
    Scenario(
        name="compressed",
        title="Fan-out, compressed",
        figures=(Figure("rate", "deliveries/s"), CPU, Figure("bytes_per_delivery", "bytes per delivery"), BUSY),
        setups=lambda quick, most: (SETUP,),
        run=run,
        clients=lambda setup: setup.clients,
        needs="compression",
    ),
    replace(
        idle.SCENARIO,
        name="compressed-idle",
        title="Idle connections that have agreed on compression",
        needs="compression",
        quick=False,
        about="As above, but the servers accept the compression that every browser offers.",
    ),
)
