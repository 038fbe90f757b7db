"""The command itself: what is to be made, how far it is, and what came of it."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.bench.methods import GROUPS, METHODS, choose, read_tuned
from cli.bench.results import short_table, write_results
from cli.bench.runs import Run, execute, plan
from cli.report import make_report
from cli.simulate import check_data, parse_assignments
from common.errors import SnowdropError
from common.settings import RunSettings

_METHODS_HELP = (
    "comma-separated: NAME, NAME:paper (published settings), NAME@key=value; "
    f"{', '.join(METHODS)}; or {', '.join(GROUPS)} for several"
)


def bench(
    data: Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")],
    out: Annotated[Path, typer.Option(help="where runs and tables go")],
    methods: Annotated[str, typer.Option(help=_METHODS_HELP)] = "table2",
    seeds: Annotated[int, typer.Option(min=1, help="runs of each method")] = 3,
    tuned: Annotated[
        list[Path] | None, typer.Option(help="settings that `snowdrop tune` found")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting for all methods"),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="write curves for TensorBoard too")] = False,
    keep: Annotated[bool, typer.Option(help="keep checkpoints and nodes' states")] = False,
) -> None:
    """Compare methods on the same data, split and seeds; make only the runs that are missing."""
    shared = parse_assignments(set_ or [])
    if tensorboard:
        shared["tensorboard"] = True
    if out.exists() and not out.is_dir():
        raise SnowdropError(f"{out} is a file; give a folder")
    folder = check_data(RunSettings.parse({"data": data, "run_dir": str(out.absolute())}))
    runs = plan(choose(methods), seeds, folder, out, read_tuned(tuned or []), shared)
    missing = [run for run in runs if not run.whole]
    typer.echo(f"{len(runs)} runs, {len(runs) - len(missing)} of them are there already")
    try:
        make(missing, keep)
    except KeyboardInterrupt:
        there = [run for run in runs if run.whole]
        if there:
            write_results(runs, out)
        raise SnowdropError(
            f"stopped; {len(there)} of {len(runs)} runs are in {out}: the same command goes on"
        ) from None
    Console().print(short_table(write_results(runs, out)))
    make_report(out)
    typer.echo(f"results are in {out}: report.html, results.md, results.csv, runs/")


def make(runs: list[Run], keep: bool) -> None:
    """Make runs one after another, with a progress bar over all of them.

    Raises
    ------
    SnowdropError
        If one fails.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(runs), left="")
        for number, run in enumerate(runs):

            def watch(share: float, before: int = number) -> None:
                done = before + share
                seconds = (time.monotonic() - began) / done * (len(runs) - done) if done else 0.0
                left = f"about {_readable(seconds)} left" if seconds else ""
                progress.update(bar, completed=before + 0.99 * share, left=left)

            progress.update(bar, description=f"{run.chosen.name}, seed {run.seed}")
            execute(run, keep, watch)
            progress.update(bar, completed=number + 1)


def _readable(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
