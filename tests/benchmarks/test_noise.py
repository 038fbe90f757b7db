"""Folders of results are read where their settings are those that are asked for."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from common.settings import RunSettings
from server_app.run_folder import RunFolder

# By its path, since an installed package is called `benchmarks` too.
_spec = spec_from_file_location("noise", Path(__file__).parents[2] / "benchmarks" / "noise.py")
assert _spec is not None and _spec.loader is not None
noise = module_from_spec(_spec)
_spec.loader.exec_module(noise)

GIVEN = {
    "method": "one-round", "data": "demo", "seed": 3, "average": "users", "clip_norm": 1.0,
    "gaussian_scale": 4.0, "release_metrics": True,
}  # fmt: skip


def run_of(values: dict[str, Any], folder: Path, recall: float) -> None:
    settings = RunSettings.parse(values)
    RunFolder(folder).write_settings(settings)
    RunFolder(folder).write_summary({"test": recall})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[RunSettings]:
    """Settings of the runs that were made; each leaves how many there are by then."""
    runs: list[RunSettings] = []

    def run(settings: RunSettings, plots: bool) -> None:
        runs.append(settings)
        run_of(settings.flat(), Path(settings.run_dir), len(runs))

    monkeypatch.setattr(noise, "run_in_process", run)
    return runs


@pytest.mark.parametrize(
    "other",
    [{"gaussian_scale": 5.0}, {"privacy_delta": 1e-3}, {"data": "/data/other"},
     {"one-round.columns": 32}, {"method": "mixture"}, {"one-round.share": 0.5}],
)  # fmt: skip
def test_a_run_with_other_settings_is_made_anew(
    tmp_path: Path, made: list[RunSettings], other: dict[str, Any]
) -> None:
    named = tmp_path / "sum-1-3"  # as it was named without its settings
    run_of(GIVEN, named, 0.5)
    assert noise.measured(named, GIVEN)["test"] == 0.5
    assert noise.measured(named, {**GIVEN, **other})["test"] == 1
    assert noise.measured(named, {**GIVEN, **other})["test"] == 1  # and read from then on
    assert noise.measured(named, GIVEN)["test"] == 0.5
    assert len(made) == 1 and Path(made[0].run_dir).parent == tmp_path


def test_a_run_that_did_not_end_is_made_anew(tmp_path: Path, made: list[RunSettings]) -> None:
    RunFolder(tmp_path / "sum-1-3").write_settings(RunSettings.parse(GIVEN))
    assert noise.measured(tmp_path / "sum-1-3", GIVEN)["test"] == 1
    assert made[0].run_dir == str(tmp_path / "sum-1-3")


def test_an_attack_with_other_settings_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, ...]] = []

    def attack(*given: Any) -> None:
        made.append(given)
        data, _, users, rounds, sets, _, folder = given
        folder.mkdir()
        settings = {
            name: value for name, _, value in (one.partition("=") for one in sets)
            if name != "secure_sums"  # which changes no result
        }  # fmt: skip
        told = {"data": data, "users": users, "rounds": rounds, "settings": settings}
        told["rows"] = [{"attack": "updates", "auc": len(made)}]
        (folder / "attack.json").write_text(json.dumps(told))

    monkeypatch.setattr(noise, "membership", attack)
    values = {**GIVEN, "secure_sums": True, "nodes": 3}

    def auc(users: int = 9, **other: Any) -> float:
        return noise.attacked(tmp_path / "attack-sum-1-3", {**values, **other}, users, 1)[
            "updates"
        ]["auc"]

    assert [auc(), auc(users=12), auc(gaussian_scale=5.0), auc(), auc(users=12)] == [1, 2, 3, 1, 2]
