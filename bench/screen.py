"""The output during a run and at its end."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import machine
from bench.report import show_ratio
from bench.scenarios import load_scenarios
from bench.summary import Summary

console = Console()


def follow(runner):
    """Run with a progress line, once no other run is in progress."""
    with machine.alone(lambda: console.print("waiting for another run to finish")):
        return show_progress(runner)


def show_progress(runner):
    """Run with a progress line, which is redrawn only between measurements, so as not to disturb them."""
    columns = (
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("starting every peer once", total=sum(1 for _ in runner.steps()))
        progress.refresh()

        def begin(scenario, peer, number):
            progress.update(task, description=f"{scenario.title}: {peer.name}, round {number + 1}")
            progress.refresh()

        def end(scenario, peer, number):
            progress.advance(task)
            progress.refresh()

        runner.on_begin, runner.on_end = begin, end
        return runner.run()


def show(results):
    """Print a table per case: each peer's figures, and the first peer's ratio to it."""
    summary = Summary(results)
    for scenario in load_scenarios().values():
        for case in summary.cases(scenario.name):
            console.print(case_table(summary, scenario, case))
    for what, why in results["left_out"].items():
        console.print(f"left out: {what}: {why}", style="yellow", markup=False)


def case_table(summary, scenario, case):
    baseline, *others = summary.peers(scenario.name, case)
    table = Table(title=f"{scenario.title}: {case}", title_justify="left")
    table.add_column("")
    for figure in scenario.figures:
        table.add_column(figure.title, justify="right")
    if others:
        table.add_column(f"{baseline} / peer", justify="right")
    for peer in (baseline, *others):
        cells = [summary.median(scenario.name, case, peer, figure) for figure in scenario.figures]
        if peer != baseline:
            cells.append(show_ratio(summary.ratio(scenario.name, case, baseline, peer, scenario.figures[0].key)))
        table.add_row(peer, *cells)
    return table
