"""A node says messages of 64 bytes in turn to four channels, whose members are on another node.

CPU is for each message: of the node that hears it, with the deliveries to its members; the same beside a server that
has no other nodes and says it itself; of the node that says it, and of Redis. Times are from saying it to receiving it
from the other node's socket. The node that hears has a core of its own; members, Redis and the other node share one.

Where saying has to be awaited (Channels, python-socketio) one message is awaited after the other, so that fewer are
said than asked for. A member of Channels is a loop of `receive` that sends by the library websockets.

With "history" the channels keep their messages for those who come back (`History`; Redis Streams).
"""

from typing import NamedTuple

from bench.nodes import Members, Watch, hear, percentile
from bench.peers.saying import CHANNELS
from bench.scenarios import Figure, Scenario

SMALL_RATE, RATE, GREAT_RATE = 500, 10_000, 100_000  # messages a second
WARM_UP_SECONDS = 0.3


class Setup(NamedTuple):
    members: int  # of each channel
    rate: int
    is_kept: bool


SETUPS = (
    Setup(1, SMALL_RATE, False),
    Setup(1, RATE, False),
    Setup(1, GREAT_RATE, False),
    Setup(100, SMALL_RATE, False),
    Setup(1, SMALL_RATE, True),
    Setup(1, RATE, True),
    Setup(100, SMALL_RATE, True),
)


def run(nodes, setup):
    if setup.is_kept not in nodes.peer.keeps:
        return
    keep = ("--keep",) if setup.is_kept else ()
    alone = nodes.start(*keep)
    figures = {"alone_us": measure(nodes, setup, alone, alone)["cpu_us"]}
    nodes.stop()
    url, redis_cpu = nodes.redis()
    hears = nodes.start(*keep, "--store", url)
    says = nodes.start(*keep, "--store", url, cores=nodes.load_cores)
    figures |= measure(nodes, setup, hears, says, redis_cpu)
    figures["more_us"] = figures["cpu_us"] - figures["alone_us"]
    nodes.stop()
    kind = "history" if setup.is_kept else "plain"
    yield f"{kind}, {setup.members} a channel, {setup.rate:,}/s", figures


def measure(nodes, setup, hears, says, redis_cpu=lambda: 0.0):
    members = Members(hears.port)
    try:
        members.join(nodes.peer, [str(number % CHANNELS) for number in range(CHANNELS * setup.members)])
        hear(members, says, min(setup.rate, RATE), WARM_UP_SECONDS, setup.members)
        watch, before = Watch(hears, says), (hears.cpu(), says.cpu(), redis_cpu())
        said = hear(members, says, setup.rate, nodes.seconds, setup.members)
        after, disturbed = (hears.cpu(), says.cpu(), redis_cpu()), watch.disturbed()
    finally:
        members.close()
    heard = members.heard / setup.members
    hear_us, say_us, redis_us = (
        1e6 * (end - begin) / count for begin, end, count in zip(before, after, (heard, said, said), strict=True)
    )
    return {
        "cpu_us": hear_us,
        "say_us": say_us,
        "redis_us": redis_us,
        "p50_us": 1e6 * percentile(members.took, 0.5),
        "p99_us": 1e6 * percentile(members.took, 0.99),
        "rate": said / nodes.seconds,
        "missing": 100 * (1 - heard / said),
        "disturbed": disturbed,
    }


SCENARIO = Scenario(
    name="relay",
    title="Relay",
    figures=(
        Figure("cpu_us", "CPU us, hearing", 2),
        Figure("more_us", "us beside one server", 2),
        Figure("say_us", "CPU us, saying", 2),
        Figure("redis_us", "CPU us, Redis", 2),
        Figure("p50_us", "p50 us"),
        Figure("p99_us", "p99 us"),
        Figure("rate", "said/s"),
        Figure("missing", "% missing", 1),
    ),
    setups=lambda quick, most: SETUPS[1:2] if quick else SETUPS,
    run=run,
    clients=lambda setup: CHANNELS * setup.members,
    lower_is_better=True,
    nodes=True,
)
