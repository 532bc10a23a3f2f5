"""All clients are disconnected, and reconnect at once."""

import time

from bench.load import Load
from bench.scenarios import BUSY, Figure, Scenario

CONCURRENT_HANDSHAKES = 1_000  # more than a listen queue holds would only measure TCP's retries


def run(session, clients):
    session.connect(["/ws/bench"] * clients)
    session.load.close()
    with Load(session.server.port) as load:
        load.add_clients(["/ws/bench"] * clients)
        cpu, load_cpu = session.server.cpu(), time.thread_time()
        seconds = load.connect(CONCURRENT_HANDSHAKES)
        yield (
            f"{clients:,} clients",
            {
                "rate": clients / seconds,
                "cpu_per_thousand": (session.server.cpu() - cpu) / clients * 1e3,
                "load_busy": (time.thread_time() - load_cpu) / seconds,
            },
        )


SCENARIO = Scenario(
    name="storm",
    title="Storm",
    figures=(
        Figure("rate", "handshakes/s"),
        Figure("cpu_per_thousand", "CPU s per thousand", 3),
        BUSY,
    ),
    setups=lambda quick, most: (1_000,) if quick else (10_000,),
    run=run,
)
