"""`snowdrop tune`: a method's settings, searched on validation items alone, the same way for all.

Optuna's tree-structured Parzen estimator with a fixed number of trials; what was tried is kept in a
journal, so that a stopped search goes on.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bench.methods import SHARED, Chosen, shared_settings
from cli.bench.runs import data_checksum, in_own_process
from cli.progress import Progress
from cli.simulate import check_data
from common import methods
from common.durable import lock_folder, make_folder, write_atomic
from common.errors import SnowdropError
from common.methods.search import Range
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
    from optuna.trial import TrialState

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
            search(study, method, shared, given, trials)
        except KeyboardInterrupt:
            raise SnowdropError(
                f"stopped after {counted(study)} of {trials} trials; the same command goes on"
            ) from None
    if not study.best_trials:
        raise SnowdropError(f"all {trials} trials failed; the last: {_last_error(study)}")
    if failed := study.get_trials(states=(TrialState.PRUNED,)):
        typer.echo(f"{len(failed)} of {trials} trials failed; the last: {_last_error(study)}")
    best = study.best_trial
    values: dict[str, Any] = best.user_attrs["settings"]
    text = as_toml(method, values, best.value or 0.0, Path(folder).name, trials, seed)
    write_atomic(out / f"{method}.toml", text.encode())
    typer.echo(text)
    typer.echo(f"best settings are in {out / f'{method}.toml'}; `snowdrop bench --tuned` takes it")


def open_study(out: Path, name: str, seed: int) -> "Study":
    """The search of that name, as far as it has come; what was cut off is not counted."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    # A search that goes on must not draw again what it drew before.
    study.sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + len(study.get_trials()))
    return study


def counted(study: "Study") -> int:
    """Trials that are behind a search; those that failed count, those that were cut off do not."""
    from optuna.trial import TrialState

    return len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _last_error(study: "Study") -> str:
    errors = [trial.user_attrs.get("error", "") for trial in study.get_trials()]
    return next((error for error in reversed(errors) if error), "unknown")


def search(
    study: "Study",
    method: str,
    shared: Mapping[str, Any],
    given: Mapping[str, Any],
    trials: int,
) -> None:
    """Try settings until ``trials`` of them are done; those that fail count as tried.

    Each trial is what `snowdrop bench` would run with these settings; one that overflows fails,
    though `snowdrop bench` would test its best round. The first two are the
    method's tuned settings of now and its published ones, as far as they lie in the search.
    """
    from optuna.trial import TrialState

    chosen = Chosen.parse(method)
    kept = {name: value for name, value in shared.items() if name not in SHARED}
    space = {name: r for name, r in methods.card(method).search.items() if name not in shared}
    known = [
        as_choices(space, Chosen.parse(f"{method}:{form}").settings({}, {}, {}))
        for form in ("tuned", "paper")
    ]

    def tell() -> None:
        best = f"best {100 * study.best_value:.2f} %" if study.best_trials else ""
        progress.update(counted(study), method, best)

    with Progress("trials", trials) as progress:
        while (done := counted(study)) < trials:
            tell()
            if done < len(known):  # one that was cut off before comes again
                study.enqueue_trial(known[done])
            trial = study.ask()
            try:
                tried = {k: v for n, r in space.items() for k, v in r.suggest(trial, n).items()}
                values = {**tried, **kept, **chosen.named.fixed}
                settings = chosen.settings({method: values}, shared, given)
                value = in_own_process(validation_recall, (settings,), tell)
            except SnowdropError as error:
                trial.set_user_attr("error", str(error))
                study.tell(trial, state=TrialState.PRUNED)
            except BaseException:
                study.tell(trial, state=TrialState.FAIL)
                raise
            else:
                trial.set_user_attr("settings", values)
                study.tell(trial, value)
            finally:
                shutil.rmtree(str(given["run_dir"]), ignore_errors=True)
        tell()


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


def as_choices(space: Mapping[str, Range], settings: RunSettings) -> dict[str, Any]:
    """The point of a search that makes these settings, as far as they lie in it."""
    values = settings.flat()
    found = {name: there.choice_of(values, name) for name, there in space.items()}
    return {name: choice for name, choice in found.items() if choice is not None}
