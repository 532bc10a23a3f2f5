"""One publisher, itself a member; every member gets each message."""

from typing import NamedTuple

from bench.scenarios import BUSY, CPU, Figure, Scenario


class Setup(NamedTuple):
    clients: int
    size: int
    windows: tuple[int, ...]


QUICK_SETUP = Setup(1_000, 64, (1, 16, 128, 1_024))
SETUPS = (
    QUICK_SETUP,
    Setup(1_000, 1_024, (1, 16, 128)),
    Setup(1_000, 16_384, (1, 16)),
    Setup(10_000, 64, (1, 16, 128)),
    Setup(10_000, 1_024, (1, 16)),
    Setup(10_000, 16_384, (1,)),
)


def run(session, setup):
    clients = session.connect(["/ws/bench"] * setup.clients)
    stream = session.load.add_stream(clients[:1], clients, size=setup.size, window=1)
    yield from in_flight(session, stream, setup)


def in_flight(session, stream, setup):
    """Measures a stream with each number of messages in flight."""
    for window in setup.windows:
        session.load.settle(1)  # so that all messages of a window start together
        session.load.widen(stream, window)
        yield f"{setup.clients:,} x {setup.size:,} B, {window:,} in flight", session.measure()


SCENARIO = Scenario(
    name="fanout",
    title="Fan-out",
    figures=(Figure("rate", "deliveries/s"), CPU, BUSY),
    setups=lambda quick, most: (QUICK_SETUP,) if quick else SETUPS,
    run=run,
    clients=lambda setup: setup.clients,
    fan_out=True,
    quick=True,
)
