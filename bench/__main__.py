"""The command line: ``python -m bench --help``."""

import argparse
import sys
from pathlib import Path

from bench.build import build

QUICK_LIMIT_SECONDS = 165  # before the last step and the report


def parse(peers, scenarios):
    parser = argparse.ArgumentParser(prog="python -m bench", description="fastws and its peers, side by side.")
    parser.add_argument("--quick", action="store_true", help="a first impression, in three minutes")
    parser.add_argument("--scenario", nargs="+", choices=scenarios, metavar="NAME", help=", ".join(scenarios))
    parser.add_argument("--peers", nargs="+", choices=peers, metavar="NAME", help=", ".join(peers))
    parser.add_argument("--rounds", type=int, help="rounds per peer (default 5; quick: 3)")
    parser.add_argument("--seconds", type=float, help="measured per round (default 2; quick: 0.4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the results")
    parser.add_argument("--report", action="store_true", help="also write docs/benchmarks.md and its plots")
    return parser.parse_args()


def main():
    build()
    from bench import report, screen
    from bench.peers import PEERS
    from bench.runner import Runner
    from bench.scenarios import load_scenarios

    scenarios = load_scenarios()
    options = parse(list(PEERS), list(scenarios))
    chosen = options.scenario or [name for name, scenario in scenarios.items() if scenario.quick or not options.quick]
    runner = Runner(
        peers=[PEERS[name] for name in options.peers or PEERS],
        scenarios=[scenarios[name] for name in chosen],
        rounds=options.rounds or (3 if options.quick else 5),
        seconds=options.seconds or (0.4 if options.quick else 2.0),
        quick=options.quick,
        path=options.json,
        time_limit=QUICK_LIMIT_SECONDS if options.quick else float("inf"),
    )
    results = screen.follow(runner)
    screen.show(results)
    if options.report:
        print(report.write(results))
    return 0 if results["records"] else 1


if __name__ == "__main__":
    sys.exit(main())
