"""The same application on several servers: an echo, and a fan-out."""

from bench.scenarios import BUSY, CPU, Figure, Scenario
from bench.scenarios import echo as plain_echo

MEMBERS = 1_000
WINDOWS = (1, 16, 128)


def fan_out(session, members):
    clients = session.connect(["/ws/bench"] * members)
    stream = session.load.add_stream(clients[:1], clients, size=64, window=1)
    for window in WINDOWS:
        session.load.settle(1)  # so that all messages of a window start together
        session.load.widen(stream, window)
        yield f"{members:,} x 64 B, {window:,} in flight", session.measure()


SCENARIOS = (
    Scenario(
        name="asgi-echo",
        title="Echo of an application",
        figures=(Figure("rate", "messages/s"), CPU, Figure("p99_us", "p99 us"), BUSY),
        setups=lambda quick, most: (1, 100),
        run=plain_echo.run,
        about="Every client has one message of 64 bytes in flight: `receive_bytes`, then `send_bytes`.",
        group="asgi",
    ),
    Scenario(
        name="asgi-fanout",
        title="Fan-out of an application",
        figures=(Figure("rate", "deliveries/s"), CPU, BUSY),
        setups=lambda quick, most: (MEMBERS,),
        run=fan_out,
        about="One publisher, itself a member; every member gets each message.",
        fan_out=True,
        group="asgi",
    ),
)
