"""50 of 60 clients do not read, while 1,000 messages of 16 KiB a second go to all. How do the other ten fare?

Rate and latency are measured once the socket buffers of the 50 are full, memory from the start.
"""

from bench.scenarios import CPU, Figure, Scenario

READERS, STALLED = 10, 50
RATE, MESSAGE_BYTES = 1_000, 16_384
FILLING_SECONDS = 1


def run(session, _):
    clients = session.connect(["/ws/bench"] * (READERS + STALLED))
    session.load.stop_reading(clients[READERS:])
    session.load.add_stream(clients[:1], clients[:READERS], size=MESSAGE_BYTES, rate=RATE)
    memory = session.server.memory()
    filling = session.load.run(FILLING_SECONDS)
    figures = session.measure_once()
    grown = session.server.memory() - memory
    figures["percent"] = 100 * figures["rate"] / (RATE * READERS)
    figures["filling_p99_us"] = filling["p99_us"]
    figures["growth"] = grown / (filling["messages"] + figures["messages"]) / MESSAGE_BYTES
    yield f"{RATE:,} x {MESSAGE_BYTES:,} B a second", figures


SCENARIO = Scenario(
    name="slow",
    title="Slow readers",
    figures=(
        Figure("percent", "% of the rate", 1),
        Figure("p99_us", "p99 us"),
        Figure("filling_p99_us", "p99 us before"),
        Figure("growth", "memory growth per byte", 2),
        CPU,
    ),
    setups=lambda quick, most: (None,),
    run=run,
    clients=lambda _: READERS + STALLED,
)
