"""An echo on one connection, 200 times a second, while messages go to 20,000 others.

There are fewer if the limit of open files is lower.
"""

from bench.scenarios import Figure, Scenario

MEMBERS = 20_000
RATE = 200


def run(session, members):
    clients = session.connect(["/ws/bench"] * members)
    (echo,) = session.connect(["/echo"])
    session.load.add_stream(clients[:1], clients, window=1)
    session.load.add_stream([echo], [echo], rate=RATE, side=True)
    yield f"{members:,} members", session.measure()


SCENARIO = Scenario(
    name="stall",
    title="Stall",
    figures=(
        Figure("side_p99_us", "echo p99 us"),
        Figure("side_max_us", "echo max us"),
        Figure("rate", "deliveries/s meanwhile"),
    ),
    setups=lambda quick, most: (min(MEMBERS, most - 1),),
    run=run,
    lower_is_better=True,
    clients=lambda members: members + 1,
)
