"""`snowdrop tune`: a method's settings, searched on validation items alone, the same way for all.

Optuna's tree-structured Parzen estimator with a fixed number of trials; what was tried is kept in a
journal, so that a stopped search goes on.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bench.methods import SHARED, Chosen, shared_settings
from cli.bench.runs import data_checksum, in_own_process
from cli.search import as_choices, counted, failed, last_error, open_study, search
from cli.simulate import check_data
from common import methods
from common.durable import lock_folder, make_folder, write_atomic
from common.errors import SnowdropError
from common.settings import RunSettings
from common.toml import toml_lines

if TYPE_CHECKING:
    from optuna import Study


def searchable() -> list[str]:
    """Methods whose card says what may be chosen."""
    return [name for name in methods.names() if methods.card(name).search]


def tune(
    data: Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")],
    method: Annotated[str, typer.Option(help=f"one of {', '.join(searchable())}")],
    out: Annotated[Path, typer.Option(help="where the journal and the best settings go")],
    trials: Annotated[int, typer.Option(min=1, help="settings to try, all in all")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="of the search and of every trial")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting that is not searched"),
    ] = None,
) -> None:
    """Search a method's settings by Recall@20 on validation items; `snowdrop bench` takes them."""
    if method in methods.synthesizers():
        raise SnowdropError(
            f"the method {method} makes synthetic users: `snowdrop tune-synthetic` searches it"
        )
    if method not in searchable():
        raise SnowdropError(
            f"method '{method}' has no search; choose from {', '.join(searchable())}"
        )
    shared = shared_settings(set_ or [])
    place = {"data": data, "run_dir": str(out.absolute())}
    folder = check_data(
        RunSettings.parse({"method": method, **shared, **place}), measured="validation"
    )
    make_folder(out)
    fixed = f", {json.dumps(shared, sort_keys=True)}" if shared else ""  # another search
    name = f"{method} on {data_checksum(folder, shared)}, seed {seed}{fixed}"
    given: dict[str, Any] = {"data": folder, "seed": seed, "baselines": False}
    given["nodes"] = shared.get("nodes", 1)
    given["run_dir"] = str(out.absolute() / f"{method}-trial")
    with lock_folder(out, "give another --out"):
        study = open_study(out, name, seed)
        try:
            search_method(study, method, shared, given, trials)
        except KeyboardInterrupt:
            raise SnowdropError(
                f"stopped after {counted(study)} of {trials} trials; the same command goes on"
            ) from None
    if not study.best_trials:
        raise SnowdropError(f"all {trials} trials failed; the last: {last_error(study)}")
    if lost := failed(study):
        typer.echo(f"{lost} of {trials} trials failed; the last: {last_error(study)}")
    best = study.best_trial
    values: dict[str, Any] = best.user_attrs["settings"]
    text = as_toml(method, values, best.value or 0.0, Path(folder).name, trials, seed)
    write_atomic(out / f"{method}.toml", text.encode())
    typer.echo(text)
    typer.echo(f"best settings are in {out / f'{method}.toml'}; `snowdrop bench --tuned` takes it")


def search_method(
    study: "Study",
    method: str,
    shared: Mapping[str, Any],
    given: Mapping[str, Any],
    trials: int,
) -> None:
    """Try settings of a method until ``trials`` of them are done.

    Each trial is what `snowdrop bench` would run with these settings; one that overflows fails,
    though `snowdrop bench` would test its best round. The first two are the
    method's tuned settings of now and its published ones, as far as they lie in the search.
    """
    chosen = Chosen.parse(method)
    kept = {name: value for name, value in shared.items() if name not in SHARED}
    space = {name: r for name, r in methods.card(method).search.items() if name not in shared}
    known = [
        as_choices(space, Chosen.parse(f"{method}:{form}").settings({}, {}, {}).flat())
        for form in ("tuned", "paper")
    ]

    def attempt(tried: Mapping[str, Any], tell: Callable[[], None]) -> tuple[dict[str, Any], float]:
        values = {**tried, **kept, **chosen.named.fixed}
        settings = chosen.settings({method: values}, shared, given)
        try:
            return values, in_own_process(validation_recall, (settings,), tell)
        finally:
            shutil.rmtree(str(given["run_dir"]), ignore_errors=True)

    search(study, method, space, known, attempt, trials)


def validation_recall(settings: RunSettings) -> float:
    """Recall@20 on validation items of the best round of a run with these settings.

    Raises
    ------
    SnowdropError
        If the run fails, or nobody has validation items.
    """
    from cli.in_process import run_in_process

    summary = run_in_process(settings, plots=False)
    if "validation" not in summary or not summary["validated_users"]:
        raise SnowdropError("no user has validation items: there is nothing to tune on")
    return float(summary["validation"]["recall@20"])


def as_toml(
    method: str, values: Mapping[str, Any], value: float, data: str, trials: int, seed: int
) -> str:
    """A table as `cli.bench.methods.read_tuned` reads it."""
    told = f"# {trials} trials on {data}, seed {seed}: validation Recall@20 {100 * value:.2f} %"
    return f"{told}\n[{method}]\n{toml_lines(values)}"
