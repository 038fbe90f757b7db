"""A search of settings with Optuna, in a journal, so that one that was stopped goes on."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.progress import Progress
from common.errors import SnowdropError
from common.methods.search import Range

if TYPE_CHECKING:
    from optuna import Study, Trial

Attempt = Callable[[Mapping[str, Any], Callable[[], None]], tuple[dict[str, Any], float]]
"""Tries what was chosen: all settings of the trial, and how good they are.

Its second argument is to be called again and again meanwhile; what it raises ends the trial.
"""

_LOOK_SECONDS = 0.2


def open_study(out: Path, name: str, seed: int) -> "Study":
    """The search of that name in a folder that the caller has locked, as far as it has come.

    What was cut off is not counted.
    """
    import optuna
    from optuna.trial import TrialState

    from cli.journal import journal

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=journal(out),
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


def last_error(study: "Study") -> str:
    """Why the last trial failed that did."""
    errors = [trial.user_attrs.get("error", "") for trial in study.get_trials()]
    return next((error for error in reversed(errors) if error), "unknown")


def failed(study: "Study") -> int:
    """Trials that failed."""
    from optuna.trial import TrialState

    return len(study.get_trials(states=(TrialState.PRUNED,)))


def search(
    study: "Study",
    label: str,
    space: Mapping[str, Range],
    known: Sequence[Mapping[str, Any]],
    attempt: Attempt,
    trials: int,
    jobs: int = 1,
) -> None:
    """Try settings until ``trials`` of them are done; those that fail count as tried.

    Parameters
    ----------
    study : Study
    label : str
        What is searched, as the progress shows it.
    space : Mapping[str, Range]
    known : Sequence[Mapping[str, Any]]
        Points of it that are tried first.
    attempt : Callable
        Raises a SnowdropError where what was chosen fails.
    trials : int
    jobs : int
        How many are tried at a time, each in a thread of its own.
    """
    from optuna.trial import TrialState

    stopped = threading.Event()
    running: dict[Future[tuple[dict[str, Any], float]], Trial] = {}

    def watch() -> None:
        if stopped.is_set():
            raise KeyboardInterrupt

    def tell() -> None:
        best = f"best {100 * study.best_value:.2f} %" if study.best_trials else ""
        progress.update(counted(study), label, best)

    def begin() -> None:
        begun = counted(study) + len(running)
        if begun < len(known):  # one that was cut off before comes again
            study.enqueue_trial(dict(known[begun]))
        trial = study.ask()
        chosen = {k: v for n, r in space.items() for k, v in r.suggest(trial, n).items()}
        running[pool.submit(attempt, chosen, watch)] = trial

    with Progress("trials", trials) as progress, ThreadPoolExecutor(jobs) as pool:
        try:
            while (done := counted(study)) < trials:
                while len(running) < min(jobs, trials - done):
                    begin()
                tell()
                for future in wait(running, _LOOK_SECONDS, FIRST_COMPLETED).done:
                    _end(study, running.pop(future), future)
        except BaseException:
            stopped.set()
            for trial in running.values():
                study.tell(trial, state=TrialState.FAIL)
            raise
        tell()


def _end(study: "Study", trial: "Trial", future: Future[tuple[dict[str, Any], float]]) -> None:
    """Write down how a trial went."""
    from optuna.trial import TrialState

    try:
        values, value = future.result()
    except SnowdropError as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.PRUNED)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    else:
        trial.set_user_attr("settings", values)
        study.tell(trial, value)


def as_choices(space: Mapping[str, Range], values: Mapping[str, Any]) -> dict[str, Any]:
    """The point of a search that makes these flat settings, as far as they lie in it."""
    found = {name: there.choice_of(values, name) for name, there in space.items()}
    return {name: choice for name, choice in found.items() if choice is not None}
