"""`python -m bench.compare OLD.json NEW.json` shows what became faster or slower beyond the noise.

A change counts if the two spreads over the rounds do not overlap and the medians differ by more than 3 %.
The exit status is 1 if something became slower.
"""

import argparse
import json
import sys
from pathlib import Path

from bench.scenarios import load_scenarios
from bench.summary import Summary

MIN_CHANGE = 0.03


def changes(old, new):
    """Yields (scenario, case, peer, old spread, new spread, gain) for the cases in both; a gain of 0.1 is 10 %."""
    old, new, scenarios = Summary(old), Summary(new), load_scenarios()
    for name, case, peer in new.rounds:
        key = scenarios[name].figures[0].key
        before, after = old.spread(name, case, peer, key), new.spread(name, case, peer, key)
        if before and after and before.middle and after.middle:
            ratio = before.middle / after.middle if scenarios[name].lower_is_better else after.middle / before.middle
            yield name, case, peer, before, after, ratio - 1


def is_noise(before, after, gain):
    return abs(gain) <= MIN_CHANGE or (before.low <= after.high and after.low <= before.high)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    slower = False
    for *what, before, after, gain in changes(*(json.loads(p.read_text()) for p in (options.old, options.new))):
        verdict = "same" if is_noise(before, after, gain) else "better" if gain > 0 else "WORSE"
        slower |= verdict == "WORSE"
        print(f"{verdict:6} {gain:+7.1%}  {' / '.join(what)}  {before.middle:,.6g} -> {after.middle:,.6g}")
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
