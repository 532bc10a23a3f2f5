"""Every client has one message of 64 bytes in flight, to the server and back."""

from bench.scenarios import BUSY, CPU, Figure, Scenario


def run(session, clients):
    for client in session.connect(["/echo"] * clients):
        session.load.add_stream([client], [client], window=1)
    yield f"{clients:,} clients", session.measure()


SCENARIO = Scenario(
    name="echo",
    title="Echo",
    figures=(Figure("rate", "messages/s"), CPU, Figure("p99_us", "p99 us"), BUSY),
    setups=lambda quick, most: (100,) if quick else (1, 100, 1_000),
    run=run,
    quick=True,
)
