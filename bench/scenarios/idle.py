"""What a connection costs that does nothing (a listener, one channel), and a full garbage collection beside it.

The collector's pause is what an echo has to wait for it. Python runs such a collection now and then by itself; it
visits every object that may be part of a cycle, so that the pause grows with the objects that a connection consists of.
"""

from bench.scenarios import Figure, Scenario
from bench.session import pause

FIRST = 100  # connected before the count begins, so that what is loaded or pooled once is not counted
LONG = 3  # seconds: some collections take one


def run(session, clients):
    session.connect(["/ws/bench"] * FIRST)
    pause(0.2)
    before = session.server.memory()
    session.connect(["/ws/bench"] * clients)
    pause(0.5)
    figures = {"bytes": (session.server.memory() - before) / clients}
    (collect,) = session.connect(["/collect"])
    session.load.add_stream([collect], [collect], window=1)
    figures["pause_ms"] = session.load.run(LONG)["p50_us"] / 1e3
    yield f"{clients:,} connections", figures


SCENARIO = Scenario(
    name="idle",
    title="Idle connections",
    figures=(Figure("bytes", "bytes per connection"), Figure("pause_ms", "full collection ms", 1)),
    setups=lambda quick, most: (10_000,) if quick else (10_000, min(50_000, most - FIRST - 1)),
    run=run,
    lower_is_better=True,
    clients=lambda clients: clients + FIRST + 1,
    quick=True,
)
