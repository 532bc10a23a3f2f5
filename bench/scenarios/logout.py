"""A user with ten connections on each of three nodes is logged out on one: how long until all 30 are closed."""

import select
import time

from bench.nodes import TIMEOUT_SECONDS, Watch, connected, masked, percentile
from bench.scenarios import Figure, Scenario

NODES, DEVICES, USERS = 3, 10, 30
MODULE = "fastws_people_node"
SETTLING_SECONDS = 0.05  # between one user and the next


def run(nodes, _):
    url, _ = nodes.redis()
    every = nodes.load_cores | nodes.server_cores
    running = [nodes.start("--store", url, module=MODULE, cores=every) for _ in range(NODES)]
    admin = connected(running[0].port, "/ws/bench?user=admin")
    watch, took = Watch(*running), []
    for number in range(USERS):
        path = f"/ws/bench?user=user-{number}"
        devices = [connected(node.port, path) for node in running for _ in range(DEVICES)]
        time.sleep(SETTLING_SECONDS)
        took.append(1e3 * log_out(admin, f"user-{number}", devices))
    disturbed = watch.disturbed()
    admin.close()
    nodes.stop()
    yield f"{NODES} nodes", {"p50_ms": percentile(took, 0.5), "max_ms": max(took), "disturbed": disturbed}


def log_out(admin, user, devices):
    """Returns the seconds until the last device has its Close frame."""
    poll = select.epoll()
    by_number = {device.fileno(): device for device in devices}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    began = time.perf_counter()
    admin.sendall(masked(user))
    while by_number:
        found = poll.poll(TIMEOUT_SECONDS)
        if not found:
            raise TimeoutError(f"{len(by_number)} connections were not closed")
        for number, _ in found:
            data = by_number[number].recv(1 << 16)
            if not data or data[0] == 0x88:
                poll.unregister(number)
                by_number.pop(number).close()
    took = time.perf_counter() - began
    poll.close()
    return took


SCENARIO = Scenario(
    name="logout",
    title="Log-out",
    figures=(Figure("p50_ms", "p50 ms", 1), Figure("max_ms", "max ms", 1)),
    setups=lambda quick, most: (None,),
    run=run,
    clients=lambda _: NODES * DEVICES,
    lower_is_better=True,
    peer="fastws",
    nodes=True,
)
