"""Messages to ten chosen connections among 10,000 in one channel."""

from bench.peers.common import GROUP
from bench.scenarios import BUSY, CPU, Figure, Scenario

CLIENTS = 10_000


def run(session, in_flight):
    clients = session.connect([f"/whisper/{i}" for i in range(CLIENTS)])
    for first in range(0, CLIENTS, GROUP):
        group = clients[first : first + GROUP]
        session.load.add_stream(group, group)
    yield f"{in_flight} in flight", session.measure(roaming=in_flight)


SCENARIO = Scenario(
    name="whisper",
    title="Whisper",
    figures=(Figure("rate", "deliveries/s"), CPU, Figure("p99_us", "p99 us"), BUSY),
    setups=lambda quick: (64,) if quick else (1, 64),
    run=run,
    clients=lambda in_flight: CLIENTS,
)
