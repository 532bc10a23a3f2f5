"""Shows which lines of the engine have run: `python tools/engine_coverage.py COUNTERS --fail-under PERCENT`.

COUNTERS is the .gcda file that an engine built with FASTWS_COVERAGE=1 writes when its process ends. It counts lines
of C, and a comment by Cython names the line of the engine that each was generated from:

    /* "fastws/engine/memory/arena.pxi":42

A line of the engine has run if any of its C has. (Cython's line tracing would show the same, but is many times slower
and misses what runs on other threads without the GIL.)
"""

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ORIGIN = re.compile(r'\s*/\* "([^"]+)":(\d+)$')
ROW = "{:40} {:>6} {:>6} {:>7}  {}"


def count_executions(counters: Path) -> tuple[Path, dict[int, int]]:
    """Returns the path of the C file, and how often each of its lines of code has run."""
    report = json.loads(subprocess.check_output(["gcov", "--json-format", "--stdout", counters]))
    (source,) = (file for file in report["files"] if file["file"].endswith("_core.c"))
    counts: dict[int, int] = defaultdict(int)
    for line in source["lines"]:
        counts[line["line_number"]] += line["count"]
    return Path(report["current_working_directory"], source["file"]), counts


def engine_lines(c_file: Path, counts: dict[int, int]) -> dict[str, dict[int, bool]]:
    """Returns for each file of the engine its lines of code, and whether they have run."""
    files: dict[str, dict[int, bool]] = defaultdict(lambda: defaultdict(bool))
    line = None
    for number, text in enumerate(c_file.read_text().splitlines(), 1):
        if origin := ORIGIN.match(text):
            line = origin[1], int(origin[2])
        elif text == "}":
            line = None  # until the next function's first line
        elif line and number in counts:
            file, line_number = line
            files[file][line_number] |= counts[number] > 0
    return {file: lines for file, lines in sorted(files.items()) if file.startswith("fastws/engine/")}


def missing_ranges(lines: dict[int, bool]) -> str:
    """Returns the ranges of lines that have not run, such as "7, 12-15"; lines without code do not split a range."""
    runs: list[list[int]] = []
    unbroken = False
    for line, has_run in sorted(lines.items()):
        if has_run:
            unbroken = False
        elif unbroken:
            runs[-1][1] = line
        else:
            runs.append([line, line])
            unbroken = True
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counters", type=Path)
    parser.add_argument("--fail-under", type=float, default=0, metavar="PERCENT")
    options = parser.parse_args()
    total = covered = 0
    print(ROW.format("Name", "Lines", "Miss", "Cover", "Missing"))
    for file, lines in engine_lines(*count_executions(options.counters)).items():
        ran = sum(lines.values())
        print(ROW.format(file, len(lines), len(lines) - ran, f"{ran / len(lines):.1%}", missing_ranges(lines)))
        total, covered = total + len(lines), covered + ran
    print(ROW.format("TOTAL", total, total - covered, f"{covered / total:.2%}", ""))
    if covered < total * options.fail_under / 100:
        print(f"Coverage of the engine is below {options.fail_under:g} %.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
