from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from cli import tune as tuning
from cli.bench.methods import METHODS, Chosen, read_tuned
from cli.tune import SPACES, open_study, tune
from common.errors import SnowdropError
from common.settings import RunSettings
from tests.cli.conftest import QUICK

FIXED = [f"{k}={v}" for k, v in QUICK.items()]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Trials run in this process; what each was run with."""
    tried: list[dict[str, Any]] = []

    def call(work: Any, arguments: tuple[Any, ...], watch: Any) -> Any:
        tried.append(arguments[0])
        return work(*arguments)

    monkeypatch.setattr(tuning, "in_own_process", call)
    return tried


@pytest.mark.parametrize("method", SPACES)
def test_every_corner_of_a_search_is_a_setting(method: str) -> None:
    corners: list[dict[str, Any]] = [{}, {}]
    for name, there in SPACES[method].items():
        for corner, last in zip(corners, (0, -1), strict=True):
            if isinstance(there, tuning.Number):
                choice: Any = (there.low, there.high)[last]
            elif isinstance(there, tuning.OneOf):
                choice = there.values[last]
            else:
                choice = list(there.sets)[last]
            corner |= there.suggest(FixedTrial({name: choice}), name)  # type: ignore[arg-type]
    for corner in corners:
        RunSettings.parse({**corner, **METHODS[method].fixed})


def test_a_search_finds_settings_that_bench_takes(
    data_folder: Path, tmp_path: Path, here: list[dict[str, Any]], capsys: Any
) -> None:
    tune(str(data_folder), "cs-fcf", tmp_path, trials=4, set_=FIXED)
    assert len(here) == 4
    assert (
        here[0]["neighbours"] == Chosen.parse("cs-fcf").settings(read_tuned([]), {}, {}).neighbours
    )
    assert len({values["head_lr"] for values in here}) == 4
    tuned = read_tuned([tmp_path / "cs-fcf.toml"])
    settings = Chosen.parse("cs-fcf").settings(tuned, QUICK, {})
    assert any(settings.head_lr == values["head_lr"] for values in here)
    study = optuna.load_study(study_name=None, storage=open_study_storage(tmp_path))
    assert study.best_trial.user_attrs["settings"].items() <= settings.model_dump().items()
    assert settings.head_lr == study.best_trial.user_attrs["settings"]["head_lr"]
    assert not (tmp_path / "cs-fcf-trial").exists()
    # What is not searched is part of what was found, whoever takes it.
    assert Chosen.parse("cs-fcf").settings(tuned, {}, {}).dim == QUICK["dim"]

    tune(str(data_folder), "cs-fcf", tmp_path, trials=6, set_=FIXED)
    assert len(here) == 6
    assert len({values["head_lr"] for values in here}) == 6
    assert "6 trials on" in (tmp_path / "cs-fcf.toml").read_text()


@pytest.mark.parametrize("method", ["mdifffr", "ridge"])
def test_a_trial_is_what_bench_runs(
    data_folder: Path, tmp_path: Path, here: list[dict[str, Any]], method: str
) -> None:
    """Not blended with similar items, as the default preset is: bench measures methods alone."""
    tune(str(data_folder), method, tmp_path, trials=1, set_=FIXED)
    given = {k: here[0][k] for k in ("data", "run_dir", "nodes", "baselines")}
    tuned = read_tuned([tmp_path / f"{method}.toml"])
    assert here[0] == Chosen.parse(method).settings(tuned, QUICK, given).model_dump()
    assert here[0]["neighbour_share"] == 0


def test_other_fixed_settings_are_another_search(
    data_folder: Path, tmp_path: Path, here: list[dict[str, Any]]
) -> None:
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=FIXED)
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=[*FIXED, "negatives=2"])
    assert [values["negatives"] for values in here] == [5, 2]


def test_when_every_trial_fails_the_last_error_is_told(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: Any) -> float:
        raise SnowdropError("no room")

    monkeypatch.setattr(tuning, "in_own_process", call)
    with pytest.raises(SnowdropError, match="all 2 trials failed; the last: no room"):
        tune(str(data_folder), "ridge", tmp_path, trials=2, set_=FIXED)


def open_study_storage(folder: Path) -> Any:
    return tuning.JournalStorage(tuning.JournalFileBackend(str(folder / "journal.log")))


def test_what_was_cut_off_is_not_counted(
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = iter([0.1, SnowdropError("no"), KeyboardInterrupt(), 0.3])

    def call(*_: Any) -> float:
        came = next(calls)
        if isinstance(came, BaseException):
            raise came
        return came

    monkeypatch.setattr(tuning, "in_own_process", call)
    with pytest.raises(SnowdropError, match="stopped after 2 of 3 trials"):
        tune(str(data_folder), "ridge", tmp_path, trials=3, set_=FIXED)
    tune(str(data_folder), "ridge", tmp_path, trials=3, set_=FIXED)
    name = optuna.get_all_study_names(open_study_storage(tmp_path))[0]
    states = [trial.state for trial in open_study(tmp_path, name, 0).get_trials()]
    assert states == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE
    ]  # fmt: skip
    assert "30.00 %" in (tmp_path / "ridge.toml").read_text()
    assert "1 of 3 trials failed; the last: no\n" in capsys.readouterr().out


def test_known_settings_that_were_cut_off_come_again(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []

    def call(_: Any, arguments: tuple[Any, ...], __: Any) -> float:
        tried.append(arguments[0]["head_lr"])
        if len(tried) in (1, 3):
            raise KeyboardInterrupt
        return 0.1

    monkeypatch.setattr(tuning, "in_own_process", call)
    for _ in range(2):
        with pytest.raises(SnowdropError, match="stopped after"):
            tune(str(data_folder), "cs-fcf", tmp_path, trials=3, set_=FIXED)
    tune(str(data_folder), "cs-fcf", tmp_path, trials=3, set_=FIXED)
    tuned, published = (
        Chosen.parse(f"cs-fcf:{form}").settings(read_tuned([]), {}, {}).head_lr
        for form in ("tuned", "paper")
    )
    assert tried[:4] == [tuned, tuned, published, published]


def test_a_search_begins_with_what_is_known() -> None:
    published = Chosen.parse("ipfedrec:paper").settings({}, {}, {})
    point = tuning.as_choices(SPACES["ipfedrec"], published)
    assert point["local"] == "all users"
    assert point["schedule"] == "every round"
    assert (point["item_pull"], point["head_lr"], point["rounds"]) == (10, 0.1, 100)
    plain = tuning.as_choices(SPACES["cs-fcf"], Chosen.parse("cs-fcf").settings({}, {}, {}))
    assert plain["local"] == "touched rows"


def test_only_methods_with_a_search(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="'random' has no search; choose from mdifffr"):
        tune(str(data_folder), "random", tmp_path)
