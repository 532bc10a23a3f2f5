"""In a channel of 10,000: messages to ten chosen connections (`to=`), or to all but the sender (`exclude=`)."""

from bench.peers.common import GROUP_SIZE
from bench.scenarios import BUSY, CPU, Figure, Scenario

CLIENTS = 10_000
CHOSEN, OTHERS = "to 10 of 10,000", "to all but the sender"


def run(session, setup):
    kind, in_flight = setup
    prepare = {CHOSEN: whisper_to_ten, OTHERS: exclude_sender}[kind]
    yield f"{kind}, {in_flight} in flight", session.measure(**prepare(session, in_flight))


def whisper_to_ten(session, in_flight):
    clients = session.connect([f"/whisper/{i}" for i in range(CLIENTS)])
    for first in range(0, CLIENTS, GROUP_SIZE):
        group = clients[first : first + GROUP_SIZE]
        session.load.add_stream(group, group)
    return {"roaming": in_flight}


def exclude_sender(session, in_flight):
    sender, *others = session.connect(["/others/bench"] * CLIENTS)
    session.load.add_stream([sender], others, window=in_flight)
    return {}


SCENARIO = Scenario(
    name="whisper",
    title="Whisper",
    figures=(Figure("rate", "deliveries/s"), CPU, Figure("p99_us", "p99 us"), BUSY),
    setups=lambda quick, most: ((CHOSEN, 64),) if quick else ((CHOSEN, 1), (CHOSEN, 64), (OTHERS, 1), (OTHERS, 16)),
    run=run,
    clients=lambda setup: CLIENTS,
)
