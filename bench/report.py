"""Renders results: `python -m bench.report RESULTS.json` writes docs/benchmarks.md and its plots."""

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.scenarios import Scenario, load_scenarios
from bench.summary import Summary

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

Made by `python -m bench` and rendered from its results by `python -m bench.report`; do not edit.

The load generator is compiled, with one thread per core. It opens the connections, sends the messages, and checks that
every client gets every message once and in order. The server has a core of its own. Peers take turns, round by round.
Each figure is the median of the rounds. Ratios are computed within each round; the median is followed by the lowest and
the highest. CPU is the time of the server process, including the kernel, in seconds per million deliveries. "Load busy"
is the fraction of the time in which the load generator was working: it is not the bottleneck if that is below 1, or if
the server's core is just as busy. Latency is measured from when a message was sent or, at a fixed rate, from when it
was due. If the server or the load generator had to wait for its core for more than 5 % of the time, because of other
work on the machine, the measurement is repeated. If it never succeeded, it counts only if there is no better one, and
is marked with a tilde.
"""

NEEDS_HEAD = """\
## Compression and TLS

The same load, where servers compress, and where they speak TLS. Peers that cannot are not in the tables.
"""

ASGI_HEAD = """\
## ASGI applications

One application of FastAPI on fastws and on other servers, each in one process with uvloop, without compression and
pings. Its fan-out is a loop of `send_bytes`, as in FastAPI's documentation; `fastapi-channels` is the same application
with `channels(websocket).broadcast` in place of the loop ([asgi.md](asgi.md)). The others are uvicorn with each of its
protocols for WebSockets, and Granian as `granian.server.embed`, so that it is one process, too.
"""

NODES_HEAD = """\
## More than one node

Nodes share a Redis server that was started for the purpose, with nothing written to disk. Each is a process on this
machine; a figure is the median of the rounds, and ratios are computed within each round. The node that is measured has
one core, and everything else shares the others. A tilde marks what was disturbed by other work on the machine: one of
the processes had to wait for its core for more than 5 % of the time. CPU time suffers least from that, times the most.
"""


class Part(NamedTuple):
    """A part of the page: how it begins, which scenarios are in it, and the level of their headings."""

    head: str
    has: Callable[[Scenario], bool]
    level: str

    @property
    def mark(self):
        """Returns its first line, by which it is found again."""
        return self.head.partition("\n")[0] + "\n"


PARTS = (
    Part(HEAD, lambda scenario: not scenario.needs and not scenario.nodes and not scenario.group, "##"),
    Part(NEEDS_HEAD, lambda scenario: bool(scenario.needs), "###"),
    Part(ASGI_HEAD, lambda scenario: scenario.group == "asgi", "###"),
    Part(NODES_HEAD, lambda scenario: scenario.nodes, "###"),
)


def render(results, part):
    """Returns a part of the page; "" if nothing in it was measured."""
    summary, scenarios = Summary(results), load_scenarios()
    measured = [scenario for name, scenario in scenarios.items() if part.has(scenario) and summary.cases(name)]
    if not measured:
        return ""
    parts = [part.head, render_header(results["header"])]
    parts += [render_scenario(summary, scenario, part.level) for scenario in measured]
    if results["left_out"]:
        lines = [f"- {what}: {why}" for what, why in results["left_out"].items()]
        parts.append(f"{part.level} Left out\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def render_header(header):
    versions = header["versions"]
    rows = [(key, value) for key, value in header.items() if key != "versions"]
    rows += [(f"peer {name}", version) for name, version in versions.items()]
    return table(["", ""], rows)


def render_scenario(summary, scenario, level):
    parts = [
        f"{level} {scenario.title}\n",
        describe(scenario),
        scenario_table(summary, scenario),
    ]
    if plot_path(scenario.name).exists():
        parts.append(f"![{scenario.title}]({plot_path(scenario.name).name})\n")
    return "\n".join(parts)


def describe(scenario):
    return (scenario.about or inspect.getdoc(sys.modules[scenario.run.__module__])) + "\n"


def scenario_table(summary, scenario):
    """Returns a table with a column per peer; each case has the result, the first peer's ratio, and other figures."""
    peers = summary.peers(scenario.name)
    better = "lower is better" if scenario.lower_is_better else "higher is better"
    rows = []
    for case in summary.cases(scenario.name):
        first, *others = ([figure.title, *medians(summary, scenario, case, figure)] for figure in scenario.figures)
        rows.append([f"**{case}**", f"{first[0]}, {better}", *first[1:]])
        if len(peers) > 1:
            rows.append(["", f"{peers[0]} / peer", *ratios(summary, scenario, case)])
        rows += [["", *row] for row in others]
    return table(["", "", *peers], rows)


def medians(summary, scenario, case, figure):
    return [summary.median(scenario.name, case, peer, figure) for peer in summary.peers(scenario.name)]


def ratios(summary, scenario, case):
    baseline, *others = summary.peers(scenario.name)
    key = scenario.figures[0].key
    return ["", *(show_ratio(summary.ratio(scenario.name, case, baseline, peer, key)) for peer in others)]


def show_ratio(ratio):
    return f"{ratio.middle:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "-"


def table(head, rows):
    """Returns a Markdown table with text columns aligned left and the peers' columns right."""
    left = 2 if len(head) > 2 else len(head)
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def plot_path(scenario):
    return PAGE.parent / f"benchmark-{scenario}.png"


def plot(results):
    """Write a PNG per scenario, with bars by case; does nothing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    summary = Summary(results)
    for scenario in load_scenarios().values():
        cases = summary.cases(scenario.name)
        if cases and not (scenario.nodes and scenario.peer):  # a single bar shows nothing
            figure, axes = pyplot.subplots(figsize=(9, 1 + 0.8 * len(cases) + 0.15 * len(summary.peers(scenario.name))))
            plot_bars(axes, summary, scenario, cases)
            figure.tight_layout()
            figure.savefig(plot_path(scenario.name), dpi=110)
            pyplot.close(figure)


def plot_bars(axes, summary, scenario, cases):
    peers = summary.peers(scenario.name)
    height = 0.8 / len(peers)
    for place, peer in enumerate(peers):
        spreads = [summary.spread(scenario.name, case, peer, scenario.figures[0].key) for case in cases]
        rows = [row + place * height for row in range(len(cases))]
        axes.barh(rows, [spread.middle if spread else 0 for spread in spreads], height, label=peer)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(cases))], cases)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"{scenario.figures[0].title} (logarithmic)")
    axes.legend(fontsize="small")


def write(results):
    """Write the page; a part of it that nothing was measured for stays as it is."""
    PAGE.parent.mkdir(exist_ok=True)
    plot(results)
    before = PAGE.read_text() if PAGE.exists() else ""
    parts = [render(results, part) or text for part, text in zip(PARTS, divide(before), strict=True)]
    PAGE.write_text("\n".join(part.rstrip() + "\n" for part in parts if part))
    return PAGE


def divide(page):
    """Returns the text of each part of a page, "" for one that is not there."""
    texts = []
    for part in reversed(PARTS):
        page, mark, text = page.partition(part.mark)
        texts.append(mark + text)
    return texts[::-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    print(write(json.loads(parser.parse_args().results.read_text())))


if __name__ == "__main__":
    main()
