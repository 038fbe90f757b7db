"""`snowdrop tune`: a method's settings, searched on validation items alone, the same way for all.

Optuna's tree-structured Parzen estimator with a fixed number of trials; what was tried is kept in a
journal, so that a stopped search goes on.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import optuna
import typer
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.bench.methods import SHARED, Chosen, read_tuned, shared_settings
from cli.bench.runs import data_checksum, in_own_process
from cli.in_process import InProcessGrid
from cli.simulate import check_data
from common.durable import lock_folder, make_folder, write_atomic
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app import app as server_app

_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


class Range(Protocol):
    """What may be chosen for one dimension of a search."""

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        """Settings of one choice."""
        ...


@dataclass(frozen=True)
class Number:
    """A number between two, on a logarithmic scale or a linear one, with three digits."""

    low: float
    high: float
    log: bool = True

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        return {name: float(f"{trial.suggest_float(name, self.low, self.high, log=self.log):.3g}")}


@dataclass(frozen=True)
class OneOf:
    """One of several values."""

    values: Sequence[Any]

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        return {name: trial.suggest_categorical(name, self.values)}


@dataclass(frozen=True)
class Together:
    """One of several named sets of settings that belong together."""

    sets: Mapping[str, Mapping[str, Any]]

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        return dict(self.sets[trial.suggest_categorical(name, list(self.sets))])


LOCAL: dict[str, Range] = {
    "head_lr": Number(0.05, 30),
    "item_lr": Number(0.5, 30),
    "local": Together(
        {
            "touched rows": {"average": "touches"},
            "all users": {"average": "users", "item_lr_per_item": True, "batch_size": 256},
        }
    ),
    "table_start": OneOf(["features", "random"]),
    "whitening": Number(0, 1, log=False),
    "dim": OneOf([64, 128, 200, 256]),
    "rounds": OneOf([40, 100]),
}
"""The training on nodes, of every method."""

SMALL_HEADS: dict[str, Range] = {"dim": OneOf([16, 32, 64])}
"""An mlp head has 2 d² numbers for each user."""

MAPPING: dict[str, Range] = {
    "item_pull": Number(0.3, 300),
    "generator_lr": Number(3e-4, 1e-2),
    "generator_weight_decay": Number(1e-5, 1e-1),
    "condition_dim": OneOf([0, 64]),
    "condition_noise": Number(0, 1, log=False),
    "schedule": Together(
        {
            "every round": {
                "generator_every": 1,
                "generator_refit": False,
                "generator_steps": 0,
                "generator_batch": 0,
                "generator_lr_decay": "none",
            },
            "at the end": {"generator_every": 40, "generator_steps": 1000},
        }
    ),
}

DIFFUSION: dict[str, Range] = {
    "generator_lr": Number(3e-4, 3e-3),
    "generator_weight_decay": Number(1e-5, 1e-1),
    "generator_steps": OneOf([500, 1000, 2000]),
    "condition_noise": Number(0, 1, log=False),
    "diffusion_steps": OneOf([5, 10, 20, 50]),
    "denoiser_width": OneOf([128, 256, 512]),
}

NEIGHBOURS: dict[str, Range] = {"neighbours": OneOf([1, 3, 5, 10, 20, 50, 100])}

SPACES: dict[str, dict[str, Range]] = {
    "mdifffr": LOCAL | DIFFUSION,
    "ipfedrec": LOCAL | MAPPING,
    "ifedncf": LOCAL | SMALL_HEADS | MAPPING,
    "cs-fcf": LOCAL | NEIGHBOURS,
    "cs-fedncf": LOCAL | SMALL_HEADS | NEIGHBOURS,
    "ridge": LOCAL,
    "own-features": LOCAL,
}
"""What is searched, by method."""


def tune(
    data: Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")],
    method: Annotated[str, typer.Option(help=f"one of {', '.join(SPACES)}")],
    out: Annotated[Path, typer.Option(help="where the journal and the best settings go")],
    trials: Annotated[int, typer.Option(min=1, help="settings to try, all in all")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="of the search and of every trial")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting that is not searched"),
    ] = None,
) -> None:
    """Search a method's settings by Recall@20 on validation items; `snowdrop bench` takes them."""
    if method not in SPACES:
        raise SnowdropError(f"method '{method}' has no search; choose from {', '.join(SPACES)}")
    shared = shared_settings(set_ or [])
    place = {"data": data, "run_dir": str(out.absolute())}
    folder = check_data(RunSettings.parse(shared | place), measured="validation")
    make_folder(out)
    fixed = f", {json.dumps(shared, sort_keys=True)}" if shared else ""  # another search
    name = f"{method} on {data_checksum(folder)}, seed {seed}{fixed}"
    given = {"data": folder, "seed": seed, "nodes": 1, "baselines": False}
    given["run_dir"] = str(out.absolute() / f"{method}-trial")
    with lock_folder(out, "give another --out"):
        study = open_study(out, name, seed)
        try:
            search(study, method, shared, given, trials)
        except KeyboardInterrupt:
            done = len(study.get_trials(states=_COUNTED))
            raise SnowdropError(
                f"stopped after {done} of {trials} trials; the same command goes on"
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


def open_study(out: Path, name: str, seed: int) -> optuna.Study:
    """The search of that name, as far as it has come; what was cut off is not counted."""
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


def _last_error(study: optuna.Study) -> str:
    errors = [trial.user_attrs.get("error", "") for trial in study.get_trials()]
    return next((error for error in reversed(errors) if error), "unknown")


def search(
    study: optuna.Study,
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
    chosen = Chosen.parse(method)
    kept = {name: value for name, value in shared.items() if name not in SHARED}
    space = {name: r for name, r in SPACES[method].items() if name not in shared}
    known = [
        as_choices(space, Chosen.parse(f"{method}:{form}").settings(read_tuned([]), {}, {}))
        for form in ("tuned", "paper")
    ]
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[best]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(method, total=trials, best="")
        while (done := len(study.get_trials(states=_COUNTED))) < trials:
            found = study.best_trials
            best = f"best {100 * study.best_value:.2f} %" if found else ""
            progress.update(bar, completed=done, best=best)
            if done < len(known):  # one that was cut off before comes again
                study.enqueue_trial(known[done])
            trial = study.ask()
            try:
                tried = {k: v for n, r in space.items() for k, v in r.suggest(trial, n).items()}
                values = {**tried, **kept, **chosen.method.fixed}
                settings = chosen.settings({method: values}, shared, given).model_dump()
                value = in_own_process(validation_recall, (settings,), lambda: None)
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
        progress.update(bar, completed=trials)


def validation_recall(values: dict[str, Any]) -> float:
    """Recall@20 on validation items of the best round of a run with these settings.

    Raises
    ------
    SnowdropError
        If the run fails, or nobody has validation items.
    """
    settings = RunSettings.parse(values)
    summary = server_app.run(InProcessGrid(settings.nodes, values), settings, plots=False)
    if summary["best_round"] is None:
        raise SnowdropError("no user has validation items: there is nothing to tune on")
    return float(summary["validation"]["recall@20"])


def as_toml(
    method: str, values: Mapping[str, Any], value: float, data: str, trials: int, seed: int
) -> str:
    """A table as `cli.bench.methods.read_tuned` reads it."""
    lines = [
        f"# {trials} trials on {data}, seed {seed}: validation Recall@20 {100 * value:.2f} %",
        f"[{method}]",
        *(f"{name} = {json.dumps(chosen)}" for name, chosen in values.items()),
    ]
    return "\n".join(lines) + "\n"


def as_choices(space: Mapping[str, Range], settings: RunSettings) -> dict[str, Any]:
    """The point of a search that makes these settings, as far as they lie in it."""
    point: dict[str, Any] = {}
    for name, there in space.items():
        if isinstance(there, Together):
            for key, chosen in there.sets.items():
                if all(getattr(settings, k) == v for k, v in chosen.items()):
                    point[name] = key
        else:
            value = getattr(settings, name)
            number = isinstance(there, Number) and there.low <= value <= there.high
            if number or (isinstance(there, OneOf) and value in there.values):
                point[name] = value
    return point
