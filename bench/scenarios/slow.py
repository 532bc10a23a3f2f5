"""50 of 60 clients do not read, while 1,000 messages of 16 KiB a second go to all: what becomes of the other ten?"""

from bench.scenarios import CPU, Figure, Scenario

READERS, DEAF = 10, 50
RATE, SIZE = 1_000, 16_384


def run(session, _):
    clients = session.connect(["/ws/bench"] * (READERS + DEAF))
    session.load.stop_reading(clients[READERS:])
    session.load.add_stream(clients[:1], clients[:READERS], size=SIZE, rate=RATE)
    memory = session.server.memory()
    figures = session.measure_once()
    grown = session.server.memory() - memory
    figures["percent"] = 100 * figures["rate"] / (RATE * READERS)
    figures["growth"] = grown / (figures["seconds"] * RATE * SIZE)
    yield f"{RATE:,} x {SIZE:,} B a second", figures


SCENARIO = Scenario(
    name="slow",
    title="Slow readers",
    figures=(
        Figure("percent", "% of the rate", 1),
        Figure("p99_us", "p99 us"),
        Figure("growth", "memory growth per byte", 2),
        CPU,
    ),
    setups=lambda quick: (None,),
    run=run,
    clients=lambda _: READERS + DEAF,
)
