"""What a connection costs that does nothing: a listener, one channel, no traffic."""

from bench.scenarios import Figure, Scenario
from bench.session import pause

FIRST = 100  # connected before the count begins, so that what is loaded or pooled once is not counted


def run(session, clients):
    session.connect(["/ws/bench"] * FIRST)
    pause(0.2)
    before = session.server.memory()
    session.connect(["/ws/bench"] * clients)
    pause(0.5)
    yield f"{clients:,} connections", {"bytes": (session.server.memory() - before) / clients}


SCENARIO = Scenario(
    name="idle",
    title="Idle connections",
    figures=(Figure("bytes", "bytes per connection"),),
    setups=lambda quick: (10_000,) if quick else (10_000, 50_000),
    run=run,
    lower_is_better=True,
    clients=lambda clients: clients + FIRST,
    quick=True,
)
