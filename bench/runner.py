"""Runs scenarios over peers, A B A B, and collects the records."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import machine
from bench.nodes import Nodes
from bench.server import Server, StartError
from bench.session import Session
from tests.lib.certificates import Authority

PEER_ERRORS = (StartError, OSError, TimeoutError, ConnectionError)


@dataclass
class Runner:
    peers: list
    scenarios: list
    rounds: int
    seconds: float
    quick: bool = False
    time_limit: float = float("inf")  # seconds for everything; whatever does not begin in time is left out
    path: Path | None = None  # where the results so far are saved after each step
    on_begin: Callable = lambda scenario, peer, number: None
    on_end: Callable = lambda scenario, peer, number: None
    records: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)
    folder: TemporaryDirectory = field(default_factory=TemporaryDirectory)  # of the certificate and its key
    certificate: tuple[str, ...] = ()

    def __post_init__(self):
        self.max_clients = machine.raise_file_limit()

    def run(self):
        """Run all rounds. Returns the contents of the JSON file."""
        self.deadline = time.monotonic() + self.time_limit
        self.server_cores, self.load_cores = machine.share_cores()
        machine.pin(self.load_cores)
        header = machine.describe() | {"rounds": self.rounds, "seconds": self.seconds, "quick": self.quick}
        header["versions"] = self.prepare()
        results = {"header": header, "left_out": self.left_out, "records": self.records}
        for scenario, setup, number, peer in self.steps():
            if time.monotonic() > self.deadline:
                self.left_out["the rest"] = f"not begun within {self.time_limit:.0f} s"
                break
            self.on_begin(scenario, peer, number)
            self.measure(scenario, setup, number, peer)
            self.on_end(scenario, peer, number)
            if self.path:
                save(results, self.path)
        return results

    def prepare(self):
        """Start each peer once. Returns the versions of those that work; the others are left out."""
        versions = {}
        for peer in list(self.peers):
            try:
                peer.prepare()
                with Server(peer, self.server_cores):
                    versions[peer.name] = peer.versions()
            except Exception as error:  # anything may be wrong with a peer's installation
                self.left_out[peer.name] = f"cannot be started: {error}"
                self.peers.remove(peer)
        return versions

    def steps(self):
        """Yields every (scenario, setup, round, peer), in an order in which a time limit cuts off the last rounds."""
        for number in range(self.rounds):
            for scenario in self.scenarios:
                for setup in scenario.setups(self.quick, self.max_clients):
                    if scenario.clients(setup) > self.max_clients:
                        why = f"the file limit allows {self.max_clients:,} clients"
                        self.left_out[f"{scenario.name} {setup}"] = why
                        continue
                    for peer in filter(scenario.takes, self.peers):
                        yield scenario, setup, number, peer

    def measure(self, scenario, setup, number, peer):
        if scenario.nodes:
            self.measure_nodes(scenario, setup, number, peer)
            return
        cores = self.server_cores | self.load_cores if scenario.spread_out else self.server_cores
        arguments = [*scenario.arguments(setup), *self.switches(scenario.needs)]
        try:
            with (
                Server(peer, cores, arguments) as server,
                Session(server, self.seconds, 2 if self.quick else 4, tls=scenario.needs == "tls") as session,
            ):
                self.record(scenario, number, peer, scenario.run(session, setup))
                if errors := session.check():
                    self.left_out[f"{peer.name} in {scenario.name} {setup}"] = f"faults in round {number}: {errors}"
        except PEER_ERRORS as error:
            self.left_out[f"{peer.name} in {scenario.name} {setup}"] = f"{type(error).__name__}: {error}"

    def switches(self, need):
        """Returns the arguments that tell a peer to do what a scenario needs."""
        if need == "tls":
            if not self.certificate:
                self.certificate = Authority(Path(self.folder.name)).issue("bench")
            return ["--tls", *self.certificate]
        return ["--compress"] if need == "compression" else []

    def measure_nodes(self, scenario, setup, number, peer):
        try:
            with Nodes(peer.as_node(), self.server_cores, self.load_cores, self.seconds) as nodes:
                self.record(scenario, number, peer, scenario.run(nodes, setup))
        except PEER_ERRORS as error:
            self.left_out[f"{peer.name} in {scenario.name} {setup}"] = f"{type(error).__name__}: {error}"

    def record(self, scenario, number, peer, cases):
        for case, figures in cases:
            record = {"scenario": scenario.name, "case": case, "peer": peer.name, "round": number, **figures}
            self.records.append(record)


def save(results, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
