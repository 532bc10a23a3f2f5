"""Medians and ratios of the records of a run."""

from collections import defaultdict
from statistics import median
from typing import NamedTuple

MAX_DISTURBED_FRACTION = 0.05  # of the measured time in which server or load had to wait for their cores


class Spread(NamedTuple):
    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values):
        return cls(min(values), median(values), max(values))


class Summary:
    """The records of one file by scenario, case and peer."""

    def __init__(self, results):
        self.rounds = defaultdict(dict)  # (scenario, case, peer) -> {round: record}
        for record in results["records"]:
            self.rounds[record["scenario"], record["case"], record["peer"]][record["round"]] = record
        for key, rounds in self.rounds.items():
            self.rounds[key] = keep_undisturbed(rounds) or rounds

    def cases(self, scenario):
        return unique(case for name, case, _ in self.rounds if name == scenario)

    def peers(self, scenario, only=None):
        """Returns who took part in a scenario, or only in one case of it."""
        return unique(peer for name, case, peer in self.rounds if name == scenario and only in (None, case))

    def spread(self, scenario, case, peer, key):
        """Returns the median of all rounds with the extremes; None if nothing was measured."""
        records = self.rounds.get((scenario, case, peer), {}).values()
        values = [record[key] for record in records if record.get(key) is not None]
        return Spread.of(values) if values else None

    def ratio(self, scenario, case, peer, other, key):
        """Returns the ratio of `peer` to `other`, computed per round, so that disturbances affect both."""
        ours, theirs = (self.rounds.get((scenario, case, name), {}) for name in (peer, other))
        shared = [number for number in ours if number in theirs]
        pairs = [(ours[number].get(key), theirs[number].get(key)) for number in shared]
        ratios = [mine / their for mine, their in pairs if mine is not None and their]
        return Spread.of(ratios) if ratios else None

    def is_disturbed(self, scenario, case, peer):
        """Returns whether all measurements were disturbed by other processes."""
        records = self.rounds.get((scenario, case, peer), {})
        return bool(records) and not keep_undisturbed(records)

    def median(self, scenario, case, peer, figure):
        """Returns the median as text; an unreliable one begins with a tilde."""
        spread = self.spread(scenario, case, peer, figure.key)
        if not spread:
            return "-"
        return f"{'~' * self.is_disturbed(scenario, case, peer)}{spread.middle:,.{figure.digits}f}"


def keep_undisturbed(rounds):
    return {number: record for number, record in rounds.items() if record.get("disturbed", 0) < MAX_DISTURBED_FRACTION}


def unique(items):
    return list(dict.fromkeys(items))
