"""A search of settings with Optuna, in a journal, so that one that was stopped goes on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.progress import Progress
from common.errors import SnowdropError
from common.methods.search import Range

if TYPE_CHECKING:
    from optuna import Study

Attempt = Callable[[Mapping[str, Any], Callable[[], None]], tuple[dict[str, Any], float]]
"""Tries what was chosen: all settings of the trial, and how good they are.

Its second argument is to be called again and again meanwhile.
"""


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
    """
    from optuna.trial import TrialState

    def tell() -> None:
        best = f"best {100 * study.best_value:.2f} %" if study.best_trials else ""
        progress.update(counted(study), label, best)

    with Progress("trials", trials) as progress:
        while (done := counted(study)) < trials:
            tell()
            if done < len(known):  # one that was cut off before comes again
                study.enqueue_trial(dict(known[done]))
            trial = study.ask()
            try:
                chosen = {k: v for n, r in space.items() for k, v in r.suggest(trial, n).items()}
                values, value = attempt(chosen, tell)
            except SnowdropError as error:
                trial.set_user_attr("error", str(error))
                study.tell(trial, state=TrialState.PRUNED)
            except BaseException:
                study.tell(trial, state=TrialState.FAIL)
                raise
            else:
                trial.set_user_attr("settings", values)
                study.tell(trial, value)
        tell()


def as_choices(space: Mapping[str, Range], values: Mapping[str, Any]) -> dict[str, Any]:
    """The point of a search that makes these flat settings, as far as they lie in it."""
    found = {name: there.choice_of(values, name) for name, there in space.items()}
    return {name: choice for name, choice in found.items() if choice is not None}
