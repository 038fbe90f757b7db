"""The command itself: what is to be made, how far it is, and what came of it."""

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cli.bench.runs import in_own_process
from cli.bench_synthetic.names import MODES, PROTOCOLS, RECOMMENDERS, Mode, Protocol
from cli.progress import Progress
from common import methods
from common.durable import lock_folder, make_folder
from common.errors import SnowdropError

if TYPE_CHECKING:
    from cli.bench_synthetic.protocol import World
    from cli.bench_synthetic.runs import Cell, Training

PRELOADED = ["cli.bench.mortal", "cli.bench_synthetic.work"]
"""All that the making of cells imports."""

_METHODS_HELP = (
    "comma-separated: NAME, NAME:VARIANT, NAME:paper (published settings), NAME@key=value; "
    f"{', '.join(methods.synthesizers())}. Real users ('original') and the most popular items "
    "come with every comparison"
)

_LOOK_SECONDS = 0.2

FormerRuns = Annotated[int | None, typer.Option("--runs", min=1, hidden=True)]
"""The former name of ``--seeds``."""


def bench_synthetic(
    data: Annotated[
        Path, typer.Argument(help="folder with train, test and validation, which cut the users")
    ],
    out: Annotated[Path, typer.Option(help="where samples and tables go")],
    chosen: Annotated[str, typer.Option("--methods", help=_METHODS_HELP)],
    recommenders: Annotated[
        str, typer.Option(help=f"comma-separated: {', '.join(RECOMMENDERS)}")
    ] = "svd",
    protocols: Annotated[
        str, typer.Option(help="published (all rated items), likes (likes alone), or both")
    ] = ",".join(PROTOCOLS),
    modes: Annotated[
        str, typer.Option(help="augment real users with synthetic ones, replace them, or both")
    ] = ",".join(MODES),
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each method")] = 5,
    runs: FormerRuns = None,
    users: Annotated[
        int, typer.Option(min=0, help="synthetic users; 0: as many as there are to train on")
    ] = 0,
    tuned: Annotated[
        list[Path] | None, typer.Option(help="settings that `snowdrop tune-synthetic` found")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting of a synthesizer"),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="trainings at a time")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    keep: Annotated[
        bool, typer.Option(help="keep trained synthesizers for more samplings")
    ] = False,
    cold_start: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="train this method for new items on synthetic users instead; DATA then has items",
        ),
    ] = "",
) -> None:
    """Judge synthetic users by what recommenders learn from them; make only what is missing."""
    from cli.bench_synthetic.methods import choose, choose_recommenders, read_tuned, shared_settings
    from cli.bench_synthetic.protocol import World
    from cli.bench_synthetic.results import short_table, write_results
    from cli.bench_synthetic.runs import Plan, checksum_of
    from common.device import pick_device

    seeds = runs or seeds
    rows, names = choose(chosen), choose_recommenders(recommenders)
    if cold_start:
        from cli.bench_synthetic.cold_start import bench_cold_start

        if tuned:
            raise SnowdropError("--tuned is not for --cold-start; give --set NAME.SETTING=VALUE")
        bench_cold_start(data, out, rows, cold_start, seeds, users, set_ or [], jobs, keep)
        return
    shared, files = shared_settings(set_ or []), read_tuned(tuned or [])
    pick_device(device, "--device")
    world = World.read(data)
    users = users or len(world.train.users)
    plan = Plan(
        rows, names, cast(list[Protocol], listed(protocols, PROTOCOLS, "--protocols")),
        cast(list[Mode], listed(modes, MODES, "--modes")), seeds, data.resolve().name,
        checksum_of(world), users, files, shared,
    )  # fmt: skip
    cells = plan.cells(out)
    told = given(shared, tuned or [])
    make_folder(out)
    missing = [cell for cell in cells if not cell.whole]
    typer.echo(
        f"{len(world.train.users)} users to train on, {len(world.reported.users)} reported, "
        f"{world.items} items; {len(cells)} cells, {len(cells) - len(missing)} of them are there "
        "already"
    )
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with lock_folder(out, "give another --out"):
        failures: dict[Path, str] = {}
        try:
            make(missing, world, users, device, keep, jobs, failures)
        except KeyboardInterrupt:
            there = sum(cell.whole for cell in cells)
            if there:
                write_results(plan, cells, world, out, failures, told)
            raise SnowdropError(
                f"stopped; {there} of {len(cells)} cells are in {out}: the same command goes on"
            ) from None
        if not any(cell.whole for cell in cells):
            raise SnowdropError(f"every cell failed; the first: {next(iter(failures.values()))}")
        table = write_results(plan, cells, world, out, failures, told)
    short_table(plan, table).show()
    reasons = {f"{c.row.name}: {failures[c.path]}": 0 for c in cells if c.path in failures}
    for reason in reasons:
        typer.echo(f"did not run: {reason}")
    named = [cell for cell in cells if cell.row.named]
    if named and not any(cell.whole for cell in named):
        raise SnowdropError(
            f"every named method failed; the first: {failures[named[0].path]}. Tables of real "
            f"users are in {out}"
        )
    typer.echo(f"results are in {out}: report.html, results.md, results.csv, runs/")


def listed(text: str, known: Sequence[str], option: str) -> list[str]:
    """Words of a comma-separated list, in their usual order.

    Raises
    ------
    SnowdropError
        If there is none, or one is unknown.
    """
    named = {word.strip() for word in text.split(",") if word.strip()}
    if not named or not named <= set(known):
        raise SnowdropError(f"{option} {text!r} must be some of {', '.join(known)}")
    return [word for word in known if word in named]


def make(
    cells: Sequence["Cell"],
    world: "World",
    users: int,
    device: str,
    keep: bool,
    jobs: int,
    failures: dict[Path, str],
) -> None:
    """Make cells, those of ``jobs`` trainings at a time, with a progress bar over all of them.

    Parameters
    ----------
    failures : dict[Path, str]
        Gets the files of cells that cannot be made, and why; the others are made nevertheless.
    """
    from cli.bench_synthetic.runs import Ticker, grouped
    from cli.bench_synthetic.work import effort
    from cli.bench_synthetic.work import make as work_on

    stopped = threading.Event()
    groups = grouped(cells)
    efforts = {training: effort(group) for training, group in groups.items()}
    whole = sum(efforts.values())
    spent: dict[Training, float] = dict.fromkeys(groups, 0.0)
    now: dict[Training, str] = {}

    def work(training: "Training", group: list["Cell"]) -> None:
        name = f"{group[0].row.name}, run {training.run}"
        now[training] = name

        def watch() -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            moment = Ticker.read(training.progress)
            spent[training] = moment.done
            now[training] = f"{name}: {moment.now}" if moment.now else name

        try:
            arguments = (group, world, users, device, keep)
            failed = in_own_process(work_on, arguments, watch, PRELOADED)
            failures.update({c.path: failed[c.path.name] for c in group if c.path.name in failed})
        except SnowdropError as error:
            failures.update({cell.path: str(error) for cell in group if not cell.whole})
        finally:
            spent[training] = efforts[training]
            now.pop(training, None)

    with ThreadPoolExecutor(jobs) as pool, Progress("cells", len(cells)) as progress:
        waiting: set[Future[None]] = {pool.submit(work, *each) for each in groups.items()}
        try:
            while waiting:
                done, waiting = wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                made = sum(cell.whole or cell.path in failures for cell in cells)
                part = len(cells) * sum(spent.values()) / whole
                progress.update(made, " · ".join(list(now.values())), part=part)
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def given(shared: Mapping[str, Any], files: Sequence[Path]) -> str:
    """What the command gave all methods, as a sentence; empty where it gave nothing."""
    said = [f"`{name}={value}`" for name, value in shared.items()]
    said += [f"tuned settings of `{path.name}`" for path in files]
    return f"Given to all methods: {', '.join(said)}." if said else ""
