"""The command itself: what is to be made, how far it is, and what came of it."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.bench.curve import Curve
from cli.bench.methods import (
    SHARED,
    choose,
    groups,
    only_task,
    read_tuned,
    shared_settings,
    unread,
)
from cli.bench.runs import Run, execute, plan, share_cores
from cli.progress import Progress
from cli.report import make_report
from cli.simulate import check_data
from common import methods
from common.durable import lock_folder, make_folder
from common.errors import SnowdropError
from common.settings import RunSettings

_METHODS_HELP = (
    "comma-separated: NAME, NAME:VARIANT, NAME:paper (published settings), NAME@key=value; "
    f"{', '.join(methods.names())}; or {', '.join(groups())} for several"
)

_LOOK_SECONDS = 0.2


def bench(
    data: Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")],
    out: Annotated[Path, typer.Option(help="where runs and tables go")],
    chosen: Annotated[str, typer.Option("--methods", help=_METHODS_HELP)] = "table2",
    seeds: Annotated[int, typer.Option(min=1, help="runs of each method")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="seed of the first of them")] = 0,
    tuned: Annotated[
        list[Path] | None, typer.Option(help="settings that `snowdrop tune` found")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting for all methods"),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="write curves for TensorBoard too")] = False,
    keep: Annotated[bool, typer.Option(help="keep checkpoints and nodes' states")] = False,
    curve: Annotated[
        str,
        typer.Option(
            metavar="users=N,…", help="train with fewer users too, such as users=300,1000,all"
        ),
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="runs at a time, which share the cores")] = 1,
    twins: Annotated[
        bool, typer.Option(help="add each tuned method's frozen twin: its federation switched off")
    ] = True,
) -> None:
    """Compare methods on the same data, split and seeds; make only the runs that are missing."""
    from cli.bench.results import divergence, short_table, write_results

    shared = shared_settings(set_ or [])
    if tensorboard:
        shared["tensorboard"] = True
    if "task" not in shared and (task := only_task(chosen)):
        shared["task"] = task
    found = read_tuned(tuned or [])
    place = {"data": data, "run_dir": str(out.absolute())}
    of_all = {name: shared[name] for name in SHARED if name in shared}
    first = RunSettings.parse({**of_all, **place})
    folder = check_data(first, measured="test")
    compared = choose(chosen, twins, first.task)
    if curve:
        compared = Curve.parse(curve, folder).extended(compared)
    numbers = range(first_seed, first_seed + seeds)
    runs = plan(compared, numbers, folder, out, found, shared)
    if sentence := unread(shared, [run.settings for run in runs]):
        typer.echo(f"warning: {sentence}")
    if silent := [run.chosen.name for run in runs if not run.settings.tells_metrics]:
        raise SnowdropError(
            f"{silent[0]} would have no results: with noise, metrics stay on the nodes; add "
            "--set release_metrics=true, which asks for them outside ε"
        )
    given = _given(shared, tuned or [], runs)
    make_folder(out)
    missing = [run for run in runs if not run.whole]
    names = ", ".join(dict.fromkeys(run.chosen.name for run in runs))
    typer.echo(f"{len(runs)} runs, {len(runs) - len(missing)} of them are there already: {names}")
    if former := [run for run in missing if run.former]:
        typer.echo(
            f"{len(former)} of them were made when other defaults held, such as "
            f"{former[0].former}: they stay where they are, and are made anew with today's"
        )
    share_cores(jobs)
    with lock_folder(out, "give another --out"):
        try:
            failures = make(missing, keep, jobs)
        except KeyboardInterrupt:
            there = [run for run in runs if run.whole]
            if there:
                write_results(runs, out, given)
                make_report(out)
            told = ", with tables and a report of these" if there else ""
            raise SnowdropError(
                f"stopped; {len(there)} of {len(runs)} runs are in {out}{told}: the same command "
                "goes on"
            ) from None
    if failures and not any(run.whole for run in runs):
        raise SnowdropError(f"every run failed; the first: {failures[0]}")
    results = write_results(runs, out, given)
    short_table(results).show()
    for line in divergence(results):
        typer.echo(line)
    make_report(out)
    if failures:
        raise SnowdropError(
            f"{len(failures)} of {len(runs)} runs failed, the others are in {out}; the same "
            f"command tries again: {'; '.join(failures)}"
        )
    typer.echo(f"results are in {out}: report.html, results.md, results.csv, runs/")


def _given(shared: Mapping[str, Any], tuned: Sequence[Path], runs: Sequence[Run]) -> str:
    """What the command gave to the methods, in sentences; empty where it gave nothing."""
    said = []
    if shared:
        settings = ", ".join(f"`{name}={value}`" for name, value in shared.items())
        said.append(f"Given to all methods: {settings}.")
        said += [_otherwise(name, value, runs) for name, value in shared.items()]
    names = {run.chosen.named.card.name for run in runs}
    for path in tuned:
        found = ", ".join(name for name in read_tuned([path]) if name in names) or "none of these"
        said.append(f"Tuned settings of `{path}`, which all others do without: {found}.")
    return " ".join(filter(None, said))


def _otherwise(setting: str, given: Any, runs: Sequence[Run]) -> str:
    """Which methods have another value than all were given; empty where none has."""
    values = {run.chosen.name: run.settings.flat() for run in runs}
    had = {name: flat[setting] for name, flat in values.items() if setting in flat}
    if (
        len(set(map(repr, had.values()))) < 2
    ):  # or it is written in another way here, as text+image is
        return ""
    named = [f"{name} ({value})" for name, value in had.items() if value != given]
    return f"These have another `{setting}`: {', '.join(named)}." if named else ""


def make(runs: list[Run], keep: bool, jobs: int) -> list[str]:
    """Make runs, ``jobs`` at a time, with a progress bar over all of them.

    Returns
    -------
    list[str]
        Why runs failed; the others are made nevertheless.
    """
    stopped = threading.Event()
    shares = dict.fromkeys(range(len(runs)), 0.0)
    now: dict[int, str] = {}
    failures: list[str] = []

    def work(number: int) -> None:
        def watch(share: float) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            shares[number] = share

        now[number] = f"{runs[number].chosen.name}, seed {runs[number].seed}"
        try:
            execute(runs[number], keep, watch)
        finally:
            shares[number] = 1.0
            del now[number]

    def said(number: int, name: str) -> str:
        share = shares[number]
        return f"{name}, {100 * share:.0f} % of its rounds" if share else name

    progress = Progress("runs", len(runs), work=sum(run.work for run in runs))
    with ThreadPoolExecutor(jobs) as pool, progress:
        waiting: set[Future[None]] = {pool.submit(work, number) for number in range(len(runs))}
        try:
            while waiting:
                done, waiting = wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    try:
                        future.result()
                    except SnowdropError as error:
                        failures.append(str(error))
                progress.update(
                    len(runs) - len(waiting),
                    now=" · ".join(said(number, name) for number, name in list(now.items())),
                    part=sum(share * runs[number].work for number, share in shares.items()),
                )
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failures
