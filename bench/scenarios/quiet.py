"""A node on Redis with 20,000 channels in which nothing happens: what it costs to be there."""

import time

from bench.nodes import connected
from bench.scenarios import Figure, Scenario

CHANNELS, EACH = 20_000, 20  # channels of a connection
MODULE = "fastws_people_node"
SETTLING_SECONDS, SECONDS = 3, 10


def run(nodes, is_kept):
    url, redis_cpu = nodes.redis()
    keep = ("--keep",) if is_kept else ()
    node = nodes.start("--store", url, *keep, module=MODULE)
    members = [connected(node.port, f"/many/{first}-{first + EACH - 1}") for first in range(0, CHANNELS, EACH)]
    time.sleep(SETTLING_SECONDS)
    before = node.cpu(), redis_cpu()
    time.sleep(SECONDS)
    after = node.cpu(), redis_cpu()
    for member in members:
        member.close()
    nodes.stop()
    percent, redis = (100 * (end - begin) / SECONDS for begin, end in zip(before, after, strict=True))
    kind = "history" if is_kept else "plain"
    yield f"{CHANNELS:,} channels, {kind}", {"percent": percent, "redis": redis}


SCENARIO = Scenario(
    name="quiet",
    title="A quiet node",
    figures=(Figure("percent", "% of a core", 2), Figure("redis", "% of Redis' core", 2)),
    setups=lambda quick, most: (False, True),
    run=run,
    clients=lambda _: CHANNELS // EACH,
    lower_is_better=True,
    peer="fastws",
    nodes=True,
)
