"""Fan-out to 1,000 clients at fixed rates; latency is measured from when a message was due."""

from bench.scenarios import Figure, Scenario

CLIENTS = 1_000
RATES = (10, 50, 100, 1_000)  # messages per second; the last is far beyond what one `send` per delivery can do


def run(session, rates):
    clients = session.connect(["/ws/bench"] * CLIENTS)
    stream = session.load.add_stream(clients[:1], clients, rate=rates[0])
    for rate in rates:
        session.load.settle(1)
        session.load.set_rate(stream, rate)
        yield f"{rate * CLIENTS:,} deliveries a second", session.measure()


SCENARIO = Scenario(
    name="latency",
    title="Latency at a fixed rate",
    figures=(
        Figure("p99_us", "p99 us"),
        Figure("p50_us", "p50 us"),
        Figure("p999_us", "p99.9 us"),
        Figure("max_us", "max us"),
        Figure("rate", "deliveries/s"),
    ),
    setups=lambda quick, most: ((50,),) if quick else (RATES,),
    run=run,
    lower_is_better=True,
    clients=lambda rates: CLIENTS,
    fan_out=True,
)
