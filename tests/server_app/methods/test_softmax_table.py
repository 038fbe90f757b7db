"""The softmax table through the whole engine: its training, its choice, who joins later."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import messages
from common.errors import SnowdropError
from common.methods.carried import SHARES
from common.settings import RunSettings
from server_app import carrier, shares
from server_app.aggregation import Summed
from server_app.carrier import Carrier
from server_app.items import load_catalogue
from server_app.kernels import ridge_weights
from server_app.methods.base import World
from server_app.methods.softmax_table import SoftmaxTable
from tests.server_app.runs import (
    SpoiltGrid,
    rounds_of,
    run_here,
    run_values,
    state_of,
    untouched,
)

CPU = torch.device("cpu")
WARM, DIM, ROUNDS = 48, 8, 6
NOISE = {"clip_norm": 1.0, "gaussian_scale": 0.5, "baselines": False}


def values_of(data: Path, folder: Path, changed: dict[str, Any] | None = None) -> dict[str, Any]:
    told = {"method": "softmax-table", "rounds": ROUNDS, "evaluate_every": 3, "baselines": False}
    return run_values(data, folder, **told) | {"fraction": 0.5} | (changed or {})


def method_of(data: Path, changed: dict[str, Any] | None = None) -> SoftmaxTable:
    settings = RunSettings.parse(values_of(data, data, changed))
    features = {"text": torch.randn(80, 12, generator=torch.Generator().manual_seed(0))}
    return SoftmaxTable("softmax-table", World(settings, load_catalogue(settings), features, CPU))


def test_training_does_not_depend_on_how_users_share_nodes(
    data_folder: Path, tmp_path: Path
) -> None:
    states, results = [], []
    for nodes in (1, 2, 7):
        folder = tmp_path / str(nodes)
        results.append(run_here(values_of(data_folder, folder, {"nodes": nodes}))["test"])
        states.append(state_of(folder, ROUNDS))
    for state, result in zip(states[1:], results[1:], strict=True):
        torch.testing.assert_close(state["table"], states[0]["table"], atol=1e-4, rtol=1e-3)
        assert result == pytest.approx(results[0], abs=1e-2)


def test_it_learns_and_the_frozen_twin_does_not(data_folder: Path, tmp_path: Path) -> None:
    own = {"fraction": 1.0, "rounds": 20, "evaluate_every": 20}
    run_here(values_of(data_folder, tmp_path / "own", own))
    twin = {**own, "method": "softmax-table:frozen"}
    run_here(values_of(data_folder, tmp_path / "twin", twin))
    losses = [float(row["loss"]) for row in rounds_of(tmp_path / "own")]
    assert losses[-1] < 0.9 * losses[0]
    first, last = (state_of(tmp_path / "twin", number) for number in (17, 20))
    assert torch.equal(first["table"], last["table"])
    assert float(last["log_scale"]) == pytest.approx(math.log(8))
    norms = last["table"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(WARM))  # the features' own


def test_steps_are_adams_with_a_rate_that_rises_and_falls(data_folder: Path) -> None:
    method = method_of(data_folder, {"server_lr": 0.5})
    leaf = torch.nn.Parameter(method.table.clone())
    adam = torch.optim.Adam([leaf], betas=(0.9, 0.99))
    rng = np.random.default_rng(0)
    for number in range(ROUNDS):
        change = rng.normal(size=(WARM, DIM))
        before = leaf.detach().clone()
        leaf.grad = torch.from_numpy(-change / 5).float()
        falling = 0.5 * (1 + math.cos(math.pi * number / ROUNDS))
        adam.param_groups[0]["lr"] = 0.01 * min(1, (number + 1) / 5) * falling
        adam.step()
        leaf.data = (before + leaf.detach()) / 2
        sums = {"change": change, "scorer": np.ones((1, 1))}
        method.step(Summed(5, 0.0, sums))
        torch.testing.assert_close(method.table, leaf.detach(), atol=1e-6, rtol=1e-5)
    assert float(method.log_scale) > math.log(8)
    before = method.table
    method.step(Summed(0, 0.0, {"change": np.ones((WARM, DIM)), "scorer": np.ones((1, 1))}))
    assert method.table is before


def test_a_resumed_training_is_as_one_that_was_not_disturbed(
    data_folder: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stopping(message: Any, reply: Any) -> Any:
        asked = messages.TrainRequest.from_record(message.content)
        if asked.round == 4:
            raise StoppedError
        return reply

    whole = run_here(values_of(data_folder, tmp_path / "whole"))
    given = values_of(data_folder, tmp_path / "parts")
    with pytest.raises(StoppedError):
        run_here(given, SpoiltGrid(2, given, stopping))
    again = run_here({**given, "resume": True})
    assert again["test"] == whole["test"]
    tables = [state_of(tmp_path / name, ROUNDS)["table"] for name in ("whole", "parts")]
    assert torch.equal(*tables)


def test_secure_sums_give_the_same_table(data_folder: Path, tmp_path: Path) -> None:
    for secure in (False, True):
        changed = {"nodes": 3, "secure_sums": secure}
        run_here(values_of(data_folder, tmp_path / str(secure), changed))
    plain, masked = (state_of(tmp_path / name, ROUNDS)["table"] for name in ("False", "True"))
    torch.testing.assert_close(masked, plain, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("noise_by", ["nodes", "sum", "server"])
def test_noise_is_on_whole_sums_and_nothing_else_is_told(
    data_folder: Path, tmp_path: Path, noise_by: str
) -> None:
    changed = {**NOISE, "noise_by": noise_by, "secure_sums": noise_by == "sum", "nodes": 3}
    grid_values = values_of(data_folder, tmp_path, {**changed, "rounds": 2, "fraction": 1.0})
    summary = run_here(grid_values)
    assert summary["privacy"]["rounds"] == 2
    assert "test" not in summary
    assert noise_by == "server" or not rounds_of(tmp_path)[0]["loss"]
    assert state_of(tmp_path, 2)["chosen"] is None


def test_validation_items_choose_the_share_in_one_message(
    data_folder: Path, tmp_path: Path
) -> None:
    values = values_of(data_folder, tmp_path)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    sent = [messages.EvaluateRequest.from_record(m.content) for m in grid.of(messages.EVALUATE)]
    assert sent[0].forms == [len(SHARES)]
    share = state_of(tmp_path, summary["best_round"])["chosen"]
    assert share in SHARES
    given = {"softmax-table.share": share}
    again = run_here(values_of(data_folder, tmp_path / "given", given))
    if again["best_round"] == summary["best_round"]:
        assert again["test"] == pytest.approx(summary["test"])
    assert state_of(tmp_path / "given", ROUNDS)["chosen"] is None


def test_validation_asks_a_share_of_all_users_not_of_those_drawn(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "ASKED", 10)
    method = method_of(data_folder, {"fraction": 0.25})
    method.step(Summed(5, 0.0, {"change": np.zeros((WARM, DIM)), "scorer": np.zeros((1, 1))}))
    scoring = method.trial(["validation"])
    assert scoring is not None
    assert scoring.arrays["asked"] == pytest.approx(10 / 20)


def test_with_a_share_of_none_it_is_kernel_ridge(data_folder: Path, tmp_path: Path) -> None:
    own = run_here(values_of(data_folder, tmp_path / "own", {"softmax-table.share": 0.0}))
    rule = run_here(values_of(data_folder, tmp_path / "rule", {"method": "kernel-ridge"}))
    assert own["test"] == pytest.approx(rule["test"], abs=1e-3)


def test_an_item_that_turns_warm_starts_where_texts_carry_it(
    data_folder: Path, tmp_path: Path
) -> None:
    run_here(values_of(data_folder, tmp_path))
    more = {"rounds": ROUNDS + 1, "resume": True, "warm_after": 9}
    run_here(values_of(data_folder, tmp_path, more))
    before, after = state_of(tmp_path, ROUNDS), state_of(tmp_path, ROUNDS + 1)
    assert len(after["table"]) > len(before["table"]) == WARM
    assert after["table"].any(1).all()


def test_rows_of_new_warm_items_are_kernel_ridge_of_the_others(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Carrier((method := method_of(data_folder)).world, method.own)
    known, new = np.arange(5, WARM), np.arange(5)
    kernel = method.own.sharpness, method.own.ridge
    expected = ridge_weights(own.warm[known], own.warm[new], *kernel)
    np.testing.assert_array_equal(own.among_warm(known, new), expected)
    monkeypatch.setattr(carrier, "WHOLE", 20)
    monkeypatch.setattr(carrier, "LANDMARKS", 15)
    assert (own.among_warm(known, new) != 0).any(0).sum() == 15
    drawn = own.weights(["validation", "test"])  # made of landmarks now
    assert drawn.warm.shape == (WARM, 15)


def test_a_drawn_part_of_the_items_trains_too(data_folder: Path, tmp_path: Path) -> None:
    changed = {"softmax-table.negatives": 10, "rounds": 3, "wire_dtype": "float16"}
    run_here(values_of(data_folder, tmp_path, changed))
    assert all(float(row["loss"]) > 0 for row in rounds_of(tmp_path))


def test_synthetic_users_train_as_others_do(data_folder: Path, tmp_path: Path) -> None:
    synthetic = {
        "answer": "synthetic", "synthesizer": "multivae", "synthetic_nodes": 1, "rounds": 2,
        "fraction": 1.0,
    }  # fmt: skip
    summary = run_here(values_of(data_folder, tmp_path, synthetic))
    assert summary["synthetic"]["users"] > 0
    row = rounds_of(tmp_path)[0]
    assert int(row["users"]) + int(row["synthetic_users"]) == 60


def test_published_items_are_scored_with_the_table(data_folder: Path, tmp_path: Path) -> None:
    values = values_of(data_folder, tmp_path)
    summary = run_here(values)
    grid = SpoiltGrid(2, values, untouched)
    assert run_here({**values, "mode": "publish"}, grid)["users"] == summary["recommended_users"]
    asked = messages.RecommendRequest.from_record(grid.of(messages.QUERY_RECOMMEND)[0].content)
    state = state_of(tmp_path, summary["best_round"])
    np.testing.assert_array_equal(asked.arrays["table"], state["table"].numpy())
    assert asked.arrays["shares"].tolist() == [[pytest.approx(state["chosen"])]]


def test_a_start_at_random_is_refused() -> None:
    with pytest.raises(SnowdropError, match="needs table_start = features"):
        RunSettings.parse({"method": "softmax-table", "table_start": "random"})
