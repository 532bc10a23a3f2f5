"""What is measured. A scenario is a module with a `SCENARIO`, or several; a new one is added to `MODULES`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import chain

MODULES = (
    *("fanout", "echo", "idle", "rooms", "whisper", "latency", "storm", "slow", "stall", "large", "threads"),
    *("compressed", "tls"),
    "asgi",
    *("relay", "resume", "gone", "logout", "quiet"),  # with several nodes
)


@dataclass(frozen=True)
class Figure:
    """A column of the results: the key in a record, and how it is shown."""

    key: str
    title: str
    digits: int = 0


CPU = Figure("cpu_per_million", "CPU s per million", 2)
BUSY = Figure("load_busy", "load busy", 2)


@dataclass(frozen=True)
class Scenario:
    """A scenario. `setups(quick, most)` lists the setups, with at most `most` clients; peers are started for each.

    `run(session, setup)` yields (case, figures); with `nodes` the session is a `Nodes`. Ratios are computed from the
    first of `figures`.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    setups: Callable[[bool, int], Iterable]
    run: Callable[..., Iterator[tuple[str, dict]]]
    lower_is_better: bool = False
    clients: Callable[..., int] = lambda setup: setup
    fan_out: bool = False  # the bare send loop can run it, too
    quick: bool = False
    peer: str = ""  # the only one to run it
    arguments: Callable[..., Iterable[str]] = lambda setup: ()  # of the peer's command
    spread_out: bool = False  # the server may use every core
    nodes: bool = False  # it takes several nodes
    group: str = ""  # of peers that are in it, and no others
    needs: str = ""  # "tls" or "compression": peers that can do that are told to
    about: str = ""  # instead of its module's docstring

    def takes(self, peer):
        """Returns whether a peer takes part."""
        if self.nodes:
            return (not self.peer or self.peer == peer.name) and peer.as_node() is not None
        if peer.group != self.group:
            return False
        if self.needs and self.needs not in peer.can:
            return False
        return (
            (not self.peer or self.peer == peer.name) and (self.fan_out or not peer.fan_out_only) and not peer.node_only
        )


def load_scenarios():
    modules = [import_module(f"bench.scenarios.{module}") for module in MODULES]
    scenarios = [getattr(module, "SCENARIOS", None) or (module.SCENARIO,) for module in modules]
    return {scenario.name: scenario for scenario in chain(*scenarios)}
