"""`snowdrop tune`: settings of methods, searched on validation items alone, the same way for all.

Optuna's tree-structured Parzen estimator with as many trials for each method; what was tried is
kept in a journal, so that a stopped search goes on.
"""

import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bench.methods import (
    SHARED,
    Chosen,
    of_groups,
    read_tuned,
    shared_settings,
    unread,
)
from cli.bench.runs import data_checksum, first_difference, in_own_process, share_cores
from cli.search import as_choices, counted, failed, last_error, open_study, search
from cli.simulate import check_data
from common import counting, methods
from common.durable import lock_folder, make_folder, write_atomic
from common.errors import OverflowedError, SnowdropError
from common.methods import Named
from common.methods.search import Range
from common.settings import RunSettings, active_groups
from common.toml import toml_lines

if TYPE_CHECKING:
    from optuna import Study


_SETTINGS = "settings"
"""Attribute of a study: all settings of its trials, but for what they try."""


def searchable() -> list[str]:
    """Methods whose card says what may be chosen."""
    return [name for name in methods.names() if methods.card(name).search]


def tune(
    data: Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")],
    chosen: Annotated[
        str, typer.Option("--methods", help=f"comma-separated: {', '.join(searchable())}")
    ],
    out: Annotated[Path, typer.Option(help="where the journal and the best settings go")],
    trials: Annotated[int, typer.Option(min=1, help="settings to try of each method")] = 40,
    seed: Annotated[
        int, typer.Option(min=0, help="of the search, and the first of every trial")
    ] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="runs of every trial, whose mean counts, each with a seed")
    ] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="trials at a time, which share the cores")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting that is not searched"),
    ] = None,
) -> None:
    """Search settings of methods by Recall@20 on validation items; `snowdrop bench` takes them."""
    names = list(dict.fromkeys(filter(None, map(str.strip, chosen.split(",")))))
    check_searchable(names)
    shared = shared_settings(set_ or [])
    if "preset" in shared:
        raise SnowdropError(
            "--set preset is not for a search, which tries settings in place of a preset's; "
            "leave it out"
        )
    # A method that combines others is searched with what was found for these.
    names.sort(key=lambda name: bool(methods.card(name).parts))
    place = {"data": data, "run_dir": str(out.absolute())}
    runs = [Chosen.parse(method).settings({}, shared, place) for method in names]
    if sentence := unread(shared, runs):
        raise SnowdropError(sentence)
    for settings in runs:
        folder = check_data(settings, measured="validation")
    make_folder(out)
    share_cores(jobs)
    path = out / f"{Path(folder).name}.toml"
    with lock_folder(out, "give another --out"):
        for method in names:
            table = tune_method(method, folder, out, trials, seed, shared, path, jobs, seeds)
            keep(path, method, table)
            typer.echo(table)
    typer.echo(
        f"best settings are in {path}; to compare methods with them: snowdrop bench {data} "
        f"--methods {','.join(names)} --tuned {path} --out DIR"
    )


def check_searchable(names: Sequence[str]) -> None:
    """Raise a SnowdropError where a method's card does not say what may be chosen."""
    if not names:
        raise SnowdropError(f"no method is named; choose from {', '.join(searchable())}")
    for method in names:
        if (plain := re.split("[:@]", method)[0]) != method:
            raise SnowdropError(
                f"'{method}' cannot be searched: write {plain} alone, and --set for a setting that "
                "is not searched"
            )
        if method in methods.synthesizers():
            raise SnowdropError(
                f"the method {method} makes synthetic users: `snowdrop tune-synthetic` searches it"
            )
        if method not in searchable():
            Named.parse(method)  # which says where a name is misspelt
            raise SnowdropError(
                f"method '{method}' has no settings to search; choose from "
                f"{', '.join(searchable())}"
            )


def tune_method(
    method: str,
    folder: str,
    out: Path,
    trials: int,
    seed: int,
    shared: Mapping[str, Any],
    path: Path,
    jobs: int = 1,
    seeds: int = 1,
) -> str:
    """Search the settings of one method, in a folder that the caller has locked.

    Parameters
    ----------
    method, folder : str
        The method's name; the data folder, or 'demo'.
    out : Path
    trials, seed : int
    shared : Mapping[str, Any]
        What is not searched.
    path : Path
        File of tuned settings. Where the method combines others, they have their settings there.
    jobs : int
        Trials at a time.
    seeds : int
        Runs of every trial.

    Returns
    -------
    str
        The table with the best settings, as TOML.

    Raises
    ------
    SnowdropError
        If the search is stopped, or every trial fails.
    """
    parts = tuned_parts(method, shared, path)
    told = f"seed {seed}" if seeds == 1 else f"seeds {seed} to {seed + seeds - 1}"
    given: dict[str, Any] = {"data": folder, "baselines": False}
    given["nodes"] = shared.get("nodes", 1)
    for left in out.glob(f"{method}-trial-*"):  # of a search that was killed
        shutil.rmtree(left, ignore_errors=True)
    about = f"{method} on {data_checksum(folder, shared)}, {told}"
    study = study_of(out, about, method, shared, parts, {**given, "seed": seed})
    try:
        runs = [{**given, "seed": seed + k} for k in range(seeds)]
        search_method(study, method, shared, runs, trials, parts, out, jobs)
    except KeyboardInterrupt:
        raise SnowdropError(
            f"stopped after {counted(study)} of {trials} trials of {method}; the same command "
            "goes on"
        ) from None
    if not study.best_trials:
        raise SnowdropError(f"every trial of {method} failed; the last: {last_error(study)}")
    if lost := failed(study):
        typer.echo(f"{method}: {lost} of {trials} trials failed; the last: {last_error(study)}")
    found = [trial.value for trial in study.trials if trial.value is not None]
    if len(found) > 1 and len(set(found)) == 1:
        typer.echo(f"{method}: all trials came out the same, so nothing tells their settings apart")
    best = study.best_trial
    values: dict[str, Any] = best.user_attrs["settings"]
    card = settings_of(method, {}, shared, {}, {}).flat()
    of_card = values.items() <= card.items()
    where = f"{Path(folder).name}, {told}"
    return as_toml(method, values, best.value or 0.0, where, trials, of_card)


def study_of(
    out: Path,
    about: str,
    method: str,
    shared: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Any]],
    run: Mapping[str, Any],
) -> "Study":
    """The search that is ``about`` this with the same settings, whether given or defaults.

    What differs from the defaults names it, so that a new setting of a release does not begin it
    anew; another default does.
    """
    space = search_space(method, shared)
    settings = settings_of(method, {}, shared, parts, {**run, "run_dir": str(out)})
    about_fixed = f"{about}, searching {', '.join(space)}"

    def named(values: Mapping[str, Any]) -> str:
        fixed = {name: value for name, value in values.items() if name not in space}
        return f"{about_fixed}, {json.dumps(fixed, sort_keys=True)}"

    study = open_study(out, named(settings.changed()), run["seed"])
    if other := _older_default(study, settings, space):
        typer.echo(f"{method}: what was tried with {other} stays as it is; this search is another")
        study = open_study(out, named(settings.with_effect()), run["seed"])
    study.set_user_attr(_SETTINGS, settings.flat())
    return study


def _older_default(study: "Study", settings: RunSettings, space: Collection[str]) -> str:
    """A setting that is not searched in which a study differs, with both values; else empty."""
    if (stored := study.user_attrs.get(_SETTINGS)) is None:
        return ""
    try:
        return first_difference(RunSettings.read(stored), settings, besides=space)
    except SnowdropError:
        return "settings that this release cannot read"


def search_space(method: str, shared: Mapping[str, Any]) -> dict[str, Range]:
    """What may be chosen for a method, without what all trials are given."""
    return {name: r for name, r in methods.card(method).search.items() if name not in shared}


def found_with(method: str, tried: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a trial that belong to what was found: what is not searched is as on the card."""
    named = Chosen.parse(method).named
    given = of_groups(shared, active_groups({"method": method, **shared}))
    kept = {name: value for name, value in given.items() if name not in SHARED}
    return {**named.card.tuned, **tried, **kept, **named.fixed}


def settings_of(
    method: str,
    values: Mapping[str, Any],
    shared: Mapping[str, Any],
    parts: Mapping[str, Mapping[str, Any]],
    run: Mapping[str, Any],
) -> RunSettings:
    """Settings of one run of a trial that tries ``values``."""
    tuned = {**parts, method: found_with(method, values, shared)}
    return Chosen.parse(method).settings(tuned, shared, run)


def tuned_parts(method: str, shared: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Tuned settings, in a file that may be there, of the methods that a method combines."""
    parts = Named.parse(method).part_names(shared)
    known = read_tuned([path]) if parts and path.exists() else {}
    return {part: known[part] for part in parts if part in known}


def keep(path: Path, method: str, table: str) -> None:
    """Write a method's table into a file, in place of its former one and beside all others.

    Raises
    ------
    SnowdropError
        If the file that is there cannot be read, or the file cannot be written.
    """
    others: list[str] = []
    if path.exists():
        read_tuned([path])
        paragraphs = path.read_text(encoding="utf-8").strip().split("\n\n")
        others = [each for each in paragraphs if f"[{method}]" not in each.splitlines()]
    write_atomic(path, ("\n\n".join([*others, table.strip()]) + "\n").encode())


def search_method(
    study: "Study",
    method: str,
    shared: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    trials: int,
    parts: Mapping[str, Mapping[str, Any]],
    out: Path,
    jobs: int,
) -> None:
    """Try settings of a method until ``trials`` of them are done.

    Each trial is what `snowdrop bench` would run with these settings, once for each of ``runs``;
    one that overflows fails, though `snowdrop bench` would test its best round. The first two are
    the method's tuned settings of now and its published ones, as far as they lie in the search.
    ``parts`` are tuned settings of the methods that it combines; runs are in ``out``.
    """
    space = search_space(method, shared)
    known = [
        as_choices(space, Chosen.parse(f"{method}:{form}").settings({}, {}, {}).flat())
        for form in ("tuned", "paper")
    ]

    def attempt(tried: Mapping[str, Any], tell: Callable[[], None]) -> tuple[dict[str, Any], float]:
        found = []
        for run in runs:
            with TemporaryDirectory(prefix=f"{method}-trial-", dir=out.absolute()) as place:
                own = {**run, "run_dir": place}
                settings = settings_of(method, tried, shared, parts, own)
                found.append(in_own_process(validation_recall, (settings,), tell))
        return found_with(method, tried, shared), fmean(found)

    search(study, method, space, known, attempt, trials, jobs)


def validation_recall(settings: RunSettings) -> float:
    """Recall@20 on validation items of the best round of a run with these settings.

    Raises
    ------
    SnowdropError
        If the run fails, or nobody has validation items.
    """
    from cli.in_process import run_in_process

    of_nodes = io.StringIO()
    try:
        with redirect_stderr(of_nodes):
            summary = run_in_process(settings, plots=False)
    except OverflowedError:  # the search itself tells that trials failed, and why
        of_nodes.truncate(0)
        raise
    finally:
        sys.stderr.write(of_nodes.getvalue())
    if "validation" not in summary or not summary["validated_users"]:
        raise SnowdropError("no user has validation items: there is nothing to tune on")
    return float(summary["validation"]["recall@20"])


def as_toml(
    method: str,
    values: Mapping[str, Any],
    value: float,
    where: str,
    trials: int,
    of_card: bool,
) -> str:
    """A table as `cli.bench.methods.read_tuned` reads it."""
    tried = counting.counted(trials, "trial")
    told = f"# {tried} on {where}: validation Recall@20 {100 * value:.2f} %"
    if of_card:
        told += ", with the settings of its card"
    return f"{told}\n[{method}]\n{toml_lines(values)}"
