"""Chat-like traffic: 1,000 channels of about 10 clients, each client in three of them, and members sending in turn."""

from bench.scenarios import BUSY, CPU, Figure, Scenario

ROOMS = 1_000
ROOMS_PER_CLIENT = 3
CLIENTS = ROOMS * 10 // ROOMS_PER_CLIENT


def rooms_of(client):
    return [(client + i * (ROOMS // ROOMS_PER_CLIENT)) % ROOMS for i in range(ROOMS_PER_CLIENT)]


def run(session, in_flight):
    clients = session.connect(["/rooms/" + ",".join(map(str, rooms_of(i))) for i in range(CLIENTS)])
    members = [[] for _ in range(ROOMS)]
    for client in clients:
        for room in rooms_of(client):
            members[room].append(client)
    for room in members:
        session.load.add_stream(room, room)
    yield f"{in_flight} in flight", session.measure(roaming=in_flight)


SCENARIO = Scenario(
    name="rooms",
    title="Rooms",
    figures=(Figure("rate", "deliveries/s"), CPU, Figure("p99_us", "p99 us"), BUSY),
    setups=lambda quick, most: (64,) if quick else (1, 64, 512),
    run=run,
    clients=lambda in_flight: CLIENTS,
)
