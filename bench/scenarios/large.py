"""One message of 1 MiB at a time to 500 clients."""

from bench.scenarios import BUSY, CPU, Figure, Scenario

MESSAGE_BYTES = 1 << 20


def run(session, clients):
    members = session.connect(["/ws/bench"] * clients)
    session.load.add_stream(members[:1], members, size=MESSAGE_BYTES, window=1)
    yield f"{clients:,} clients", session.measure()


SCENARIO = Scenario(
    name="large",
    title="Large messages",
    figures=(Figure("rate", "deliveries/s"), CPU, Figure("p99_us", "p99 us"), BUSY),
    setups=lambda quick, most: (500,),
    run=run,
    fan_out=True,
)
