"""The same application on several servers: an echo, and a fan-out."""

from bench.scenarios import BUSY, CPU, Figure, Scenario, echo, fanout

SETUP = fanout.Setup(1_000, 64, (1, 16, 128))

SCENARIOS = (
    Scenario(
        name="asgi-echo",
        title="Echo of an application",
        figures=(Figure("rate", "messages/s"), CPU, Figure("p99_us", "p99 us"), BUSY),
        setups=lambda quick, most: (1, 100),
        run=echo.run,
        about="Every client has one message of 64 bytes in flight: `receive_bytes`, then `send_bytes`.",
        group="asgi",
    ),
    Scenario(
        name="asgi-fanout",
        title="Fan-out of an application",
        figures=(Figure("rate", "deliveries/s"), CPU, BUSY),
        setups=lambda quick, most: (SETUP,),
        run=fanout.run,
        clients=lambda setup: setup.clients,
        about="One publisher, itself a member; every member gets each message.",
        fan_out=True,
        group="asgi",
    ),
)
