"""Runs the oracle, prints what came of it, and exits with 1 if anything was wrong."""

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from .mutations import MUTATIONS
from .run import Run


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Three nodes, a Redis, and faults.")
    parser.add_argument("--seconds", type=float, default=600, help="how long there are faults (default 600)")
    parser.add_argument("--clients", type=int, default=300, help="how many there are (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other faults")
    parser.add_argument("--lease", type=float, default=6, help="of the nodes, in seconds (default 6)")
    parser.add_argument("--lossy", action="store_true", help="Redis comes back with what it had 2 s before")
    parser.add_argument("--break", choices=MUTATIONS, default="", dest="broken", help="break a rule of the follower")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            Path(folder),
            given.seconds,
            given.clients,
            given.seed,
            lease=given.lease,
            is_lossy=given.lossy,
            broken=given.broken,
        )
        verdict = await run.run()
    print(run.summary())
    print("\n".join(verdict.lines()))
    if verdict.count:
        print(f"The schedule of --seed {given.seed}:", *run.schedule, sep="\n")
    return 1 if verdict.count else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
