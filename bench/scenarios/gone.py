"""A node with 10,000 users is killed: how long until the last of them has left a channel, for a member elsewhere.

A node is found dead when it has not been heard of for a lease. Whoever is still listed afterwards is a zombie.
"""

import json
import time

from bench.nodes import READ_SIZE, TIMEOUT_SECONDS, Watch, connected
from bench.scenarios import Figure, Scenario

USERS = 10_000
MODULE = "fastws_people_node"
LEASES = (6, 1)  # seconds
LEAVE = b'"event":"leave"'


def run(nodes, setup):
    lease, count = setup
    url, _ = nodes.redis()
    options = ("--store", url, "--lease", str(lease))
    dying = nodes.start(*options, module=MODULE, cores=nodes.load_cores)
    left = nodes.start(*options, "--watch", "bench", module=MODULE)
    users = [connected(dying.port, f"/ws/bench?user=user-{number}") for number in range(count)]
    time.sleep(2 * lease / 3)  # until they are known everywhere
    watcher = connected(left.port, "/ws/bench?user=watcher")
    known = listed(watcher)
    watch, cpu, began = Watch(left), left.cpu(), time.perf_counter()
    dying.process.kill()
    seconds = wait_for(watcher, LEAVE, count) - began
    cpu, disturbed = left.cpu() - cpu, watch.disturbed()
    late = connected(left.port, "/ws/bench?user=late")
    zombies = len(listed(late) - {"watcher", "late"})
    for sock in (*users, watcher, late):
        sock.close()
    nodes.stop()
    yield (
        f"{count:,} users, lease {lease} s",
        {"seconds": seconds, "cpu": cpu, "known": len(known - {"watcher"}), "zombies": zombies, "disturbed": disturbed},
    )


def wait_for(sock, what, count):
    """Receive until something has come so often; returns when."""
    deadline, rest = time.monotonic() + TIMEOUT_SECONDS, b""
    while count > 0:
        data = rest + sock.recv(READ_SIZE)
        count -= data.count(what)
        rest = data[-len(what) + 1 :]
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count:,} times {what.decode()} did not come")
    return time.perf_counter()


def listed(sock):
    """Returns the users whom a newcomer is told of."""
    data = b""
    while b"]}" not in data:
        data += sock.recv(READ_SIZE)
    text = data[data.index(b"{") :].decode()
    notice = json.JSONDecoder().raw_decode(text)[0]
    return {presence["user"] for presence in notice["users"]}


SCENARIO = Scenario(
    name="gone",
    title="A node is gone",
    figures=(
        Figure("seconds", "seconds to the last leave", 2),
        Figure("cpu", "CPU s of the node left", 2),
        Figure("known", "users known before"),
        Figure("zombies", "zombies"),
    ),
    setups=lambda quick, most: [(lease, min(USERS, most - 1_000)) for lease in LEASES],
    run=run,
    clients=lambda setup: setup[1],
    lower_is_better=True,
    peer="fastws",
    nodes=True,
)
