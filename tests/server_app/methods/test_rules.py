"""Rules: methods that need no federation run without a round, and recommend."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import messages
from tests.server_app.runs import SpoiltGrid, rounds_of, run_here, run_values, untouched

SCORERS = {
    "content-profile": "profile",
    "kernel-profile": "kernel",
    "tfidf-profile": "weights",
    "kernel-ridge": "weights",
    "random": "random",
}


@pytest.mark.parametrize("method", SCORERS)
def test_a_rule_runs_without_a_round_and_recommends(
    data_folder: Path, tmp_path: Path, method: str
) -> None:
    values = run_values(data_folder, tmp_path, method=method)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid, plots=method == "random")
    assert not grid.of(messages.TRAIN)
    assert rounds_of(tmp_path) == []
    assert not list((tmp_path / "checkpoint").glob("*.ckpt"))
    assert summary["kind"] == ("floor" if method == "random" else "rule")
    assert summary["best_round"] is None
    assert summary["recommended_users"] == 60
    assert set(summary["baselines"]) == SCORERS.keys() - {method}  # no controls, and no twin
    asked = grid.of(messages.QUERY_RECOMMEND)
    request = messages.RecommendRequest.from_record(asked[0].content)
    assert (request.scorer, request.method, request.round) == (SCORERS[method], method, 0)
    assert json.loads((tmp_path / "settings.json").read_text())["method"] == method


def test_a_rule_ranks_better_than_chance_and_as_it_does_beside_a_method(
    data_folder: Path, tmp_path: Path
) -> None:
    results: dict[str, Any] = {}
    for method in SCORERS:
        values = run_values(data_folder, tmp_path / method, method=method, baselines=False)
        results[method] = run_here(values)
    beside = run_here(run_values(data_folder, tmp_path / "trained", method="own-features"))
    for method, summary in results.items():
        for split in ("validation", "test"):
            expected = beside["baselines"][method][split]
            if method != "random":  # whose draws are those of the training
                assert summary[split] == pytest.approx(expected)
    chance = results["random"]["test"]["ndcg@20"]
    for method in ("content-profile", "kernel-profile", "kernel-ridge"):
        assert results[method]["test"]["ndcg@20"] > 1.2 * chance


def test_a_rule_runs_again_in_its_folder(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, method="tfidf-profile", baselines=False)
    first, second = run_here(values), run_here(values)
    assert first["test"] == second["test"]


def test_weights_of_a_rule_are_for_the_items_that_are_asked_for(
    data_folder: Path, tmp_path: Path
) -> None:
    values = run_values(data_folder, tmp_path, method="kernel-ridge", baselines=False)
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    shapes = {}
    for message in grid.of(messages.EVALUATE):
        for ranked in messages.EvaluateRequest.from_record(message.content).rankings():
            shapes[ranked.split] = ranked.arrays["weights"].shape
            assert np.isfinite(ranked.arrays["weights"]).all()
    assert {len(shape) for shape in shapes.values()} == {2}
    assert {split: sorted(shape) for split, shape in shapes.items()} == {
        "validation": [8, 48],
        "test": [24, 48],
    }
