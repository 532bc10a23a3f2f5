"""One peer, one set of clients, and their measurements."""

import os
import time
from pathlib import Path

from bench.load import Load
from bench.summary import MAX_DISTURBED_FRACTION

WARM_UP_FRACTION = 0.25  # of the measured time
MAX_PAUSE_SECONDS = 0.5  # before another attempt


class Session:
    """What a scenario works with: the server's process, its clients, and `measure`."""

    def __init__(self, server, seconds, attempts, tls=False):
        self.server, self.seconds, self.attempts = server, seconds, attempts
        self.load = Load(server.port, tls=tls)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.load.close()

    def connect(self, paths, **options):
        """Connect one client per path. Returns their numbers."""
        clients = self.load.add_clients(paths, **options)
        self.load.connect()
        return clients

    def measure(self, **options):
        """Run the load, after a warm-up. Returns its figures and the server's CPU time.

        On a shared machine other processes interfere. The kernel tells how long server and load had to wait for their
        cores; a run in which that exceeded 5 % of the time is repeated, and the least disturbed run counts.
        """
        self.load.run(self.seconds * WARM_UP_FRACTION, **options)
        runs = []
        while len(runs) < self.attempts:
            runs.append(self.measure_once(**options))
            if runs[-1]["disturbed"] < MAX_DISTURBED_FRACTION:
                break
            self.load.settle(MAX_PAUSE_SECONDS)
        return min(runs, key=lambda run: run["disturbed"])

    def measure_once(self, **options):
        cpu, waits = self.server.cpu(), self.waits()
        figures = self.load.run(self.seconds, **options)
        cpu, seconds = self.server.cpu() - cpu, figures["seconds"]
        figures["server_busy"] = cpu / seconds
        figures["disturbed"] = max(after - before for before, after in zip(waits, self.waits(), strict=True)) / seconds
        if figures["deliveries"]:
            figures["cpu_per_million"] = cpu / figures["deliveries"] * 1e6
        return figures

    def waits(self):
        """Returns for how many seconds server, load and each core could have run, but something else did."""
        return [run_delay(self.server.process.pid), run_delay(os.getpid()), *steal()]

    def check(self, patience=0.3):
        """Returns what was lost, repeated or out of order, by name. Unsent messages of a slow peer do not count."""
        self.load.settle(patience)
        return self.load.errors


def run_delay(pid):
    """Returns for how many seconds the main thread of a process was ready to run but had to wait."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def steal():
    """Returns the seconds taken by the hypervisor, for each core."""
    lines = Path("/proc/stat").read_text().splitlines()
    return [int(line.split()[8]) / os.sysconf("SC_CLK_TCK") for line in lines if line.startswith("cpu")][1:]


def pause(seconds):
    """Let a server settle."""
    time.sleep(seconds)
