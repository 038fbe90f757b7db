"""What a run is compared with: rules, controls, and its frozen twin."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common import messages, methods
from common.messages import TrainRequest
from server_app.methods.mdifffr import MDiffFR
from server_app.strategy import ColdStart
from tests.server_app.conftest import Ran
from tests.server_app.runs import (
    SpoiltGrid,
    rounds_of,
    run_here,
    run_values,
    state_of,
    untouched,
)

RULES = {"content-profile", "kernel-profile", "tfidf-profile", "kernel-ridge"}
CONTROLS = {"ridge", "own-features", "similar-items"}


def test_a_run_stands_beside_rules_controls_and_its_twin(plain: Ran) -> None:
    baselines = plain[1]["baselines"]
    kinds = {name: baseline["kind"] for name, baseline in baselines.items()}
    assert kinds == (
        dict.fromkeys(RULES, "rule")
        | dict.fromkeys(CONTROLS, "control")
        | {"random": "floor", "frozen": "twin"}
    )
    assert baselines["kernel-ridge"]["title"] == methods.card("kernel-ridge").title
    assert baselines["frozen"]["title"] == "MDiffFR, frozen"


@pytest.mark.parametrize("method", ["ridge", "own-features"])
def test_a_method_is_no_control_of_itself(data_folder: Path, tmp_path: Path, method: str) -> None:
    summary = run_here(run_values(data_folder, tmp_path, method=method))
    found = {n for n, one in summary["baselines"].items() if one["kind"] == "control"}
    assert found == CONTROLS - {method}


def test_a_control_that_needs_the_features_is_left_out_of_a_random_start(
    data_folder: Path, tmp_path: Path
) -> None:
    summary = run_here(run_values(data_folder, tmp_path, method="ridge", table_start="random"))
    assert "own-features" not in summary["baselines"]
    assert "similar-items" in summary["baselines"]


def test_a_mixture_is_shown_beside_its_first_method(data_folder: Path, tmp_path: Path) -> None:
    summary = run_here(run_values(data_folder, tmp_path, method="mixture"))
    assert summary["method"] == "MDiffFR + similar items"
    baselines = summary["baselines"]
    assert {"mdifffr", "similar-items"} <= set(baselines)
    assert baselines["mdifffr"]["kind"] == "control"
    assert baselines["mdifffr"]["test"] != summary["test"]


def test_without_baselines_nothing_is_compared(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, method="ridge", baselines=False, twin=True)
    assert run_here(values)["baselines"] == {}
    assert not (tmp_path / "frozen").exists()


# The frozen twin.


def test_the_table_of_the_twin_stays_as_it_starts(plain: Ran) -> None:
    twin = plain[0] / "frozen"
    first, last = (state_of(twin, number)["table"] for number in (1, 4))
    assert torch.equal(first, last)
    assert not torch.equal(last, state_of(plain[0], 4)["table"])
    torch.testing.assert_close(last.norm(dim=1), torch.ones(48))  # rows of features


def test_the_twins_generator_is_fitted_once(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[torch.Tensor] = []
    fit = MDiffFR.fit

    def watched(self: MDiffFR, target: torch.Tensor, *rest: object) -> float:
        fits.append(target)
        return fit(self, target, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(MDiffFR, "fit", watched)
    values = run_values(
        data_folder, tmp_path, method="mdifffr:frozen", mdifffr__fit_every=1, rounds=5
    )
    summary = run_here(values)
    assert len(fits) == 1
    assert (summary["method"], summary["kind"]) == ("MDiffFR, frozen", "trained")
    assert "frozen" not in summary["baselines"]  # it is its own twin
    assert [row["round"] for row in rounds_of(tmp_path) if row["generator_loss"]] == ["1"]


def test_the_twins_generator_trains_as_long_where_it_goes_on_from_round_to_round(
    data_folder: Path, tmp_path: Path
) -> None:
    own = {"ipfedrec__fit_every": 1, "ipfedrec__refit": False, "condition_dim": 0}
    run_here(run_values(data_folder, tmp_path, method="ipfedrec:frozen", **own))
    losses = [float(row["generator_loss"]) for row in rounds_of(tmp_path)]
    assert len(losses) == 4  # one short training alone would make a straw man of the twin
    assert losses == sorted(losses, reverse=True)


def test_the_twins_heads_train_as_many_rounds(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, method="own-features", twin=True)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    twin = state_of(tmp_path / "frozen", 4)
    requests = [TrainRequest.from_record(m.content) for m in grid.of(messages.TRAIN)]
    of_twin = [request for request in requests if request.training == twin["id"]]
    assert {request.round for request in of_twin} == {1, 2, 3, 4}
    assert all((request.arrays["table"] == twin["table"].numpy()).all() for request in of_twin)
    losses = [row["loss"] for row in twin["history"]]
    assert losses == sorted(losses, reverse=True)  # heads learn
    assert losses[-1] < 0.9 * losses[0]
    random = summary["baselines"]["random"]["test"]["recall@20"]
    assert summary["baselines"]["frozen"]["test"]["recall@20"] > random
    asked = [messages.EvaluateRequest.from_record(m.content) for m in grid.of(messages.EVALUATE)]
    tested = [ranked for one in asked if one.training == twin["id"] for ranked in one.rankings()]
    assert {one.scorer for one in tested if one.split == "test"} == {"head"}


def test_the_twin_is_the_frozen_variant(plain: Ran, data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, method="mdifffr:frozen", baselines=False)
    summary = run_here(values)
    assert summary["test"] == pytest.approx(plain[1]["baselines"]["frozen"]["test"])
    assert summary["validation"] == pytest.approx(plain[1]["baselines"]["frozen"]["validation"])


def test_the_twin_goes_on_where_the_run_does(plain: Ran, data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, twin=True)
    run_here({**values, "rounds": 2})
    former = state_of(tmp_path / "frozen", 2)["id"]
    summary = run_here({**values, "resume": True})
    twin = state_of(tmp_path / "frozen", 4)
    assert twin["id"] == former
    assert [row["round"] for row in twin["history"]] == [1, 2, 3, 4]
    expected = plain[1]["baselines"]["frozen"]["test"]
    assert summary["baselines"]["frozen"]["test"] == pytest.approx(expected)


def test_a_training_that_begins_anew_and_is_stopped_has_a_twin_of_its_own(
    plain: Ran, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = run_values(data_folder, tmp_path, twin=True)
    run_here({**values, "head_lr": 0.001})
    train = ColdStart.configure_train

    def stopped(self: ColdStart, server_round: int, *rest: Any) -> Any:
        if server_round == 3:
            raise KeyboardInterrupt
        return train(self, server_round, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ColdStart, "configure_train", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_here({**values, "fresh": True})
    summary = run_here({**values, "resume": True})
    expected = plain[1]["baselines"]["frozen"]["test"]
    assert summary["baselines"]["frozen"]["test"] == pytest.approx(expected)
