"""Whole runs with noise: of the nodes, and of a trusted server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.discrete import STEP
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app import aggregation
from server_app.items import load_catalogue, world_of
from server_app.training import Training
from tests.server_app.runs import rounds_of, run_here, run_values, state_of

GAUSSIAN = {"average": "users", "clip_norm": 0.5, "gaussian_scale": 2.0, "release_metrics": True}


def values_of(data: Path, folder: Path, **changed: Any) -> dict[str, Any]:
    values = {"method": "own-features", "baselines": False, "rounds": 2, **GAUSSIAN, **changed}
    return run_values(data, folder, **values)


def test_the_servers_noise_is_divided_by_the_expected_users(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the noise itself, the step is the clipped sum over fraction × users."""
    drawn: list[tuple[int, ...]] = []

    def none(shape: tuple[int, ...], deviation: float) -> np.ndarray:
        drawn.append(shape)
        assert deviation * STEP == 2.0
        return np.zeros(shape, np.int64)

    monkeypatch.setattr(aggregation, "discrete_gaussian", none)
    server = values_of(data_folder, tmp_path / "server", noise_by="server", fraction=0.5, rounds=1)
    summary = run_here(server)
    users = summary["dataset"]["users"]
    (row,) = rounds_of(tmp_path / "server")
    assert int(row["users"]) == round(0.5 * users)
    assert drawn == [(48, 8)]
    assert row["loss"]

    clip = {"average": "users", "clip_norm": 1e6, "gaussian_scale": 2.0, "noise_by": "server"}
    loose = values_of(data_folder, tmp_path / "loose", **clip, fraction=0.5, rounds=1)
    run_here(loose)
    plain = values_of(
        data_folder, tmp_path / "plain", fraction=0.5, rounds=1, clip_norm=0.0, gaussian_scale=0.0
    )
    run_here(plain)
    start = state_of(tmp_path / "plain", 1)
    moved = state_of(tmp_path / "loose", 1)["table"]
    ratio = round(0.5 * users) / int(rounds_of(tmp_path / "plain")[0]["users"])
    first = first_table(plain)
    torch.testing.assert_close(
        (moved - first) * ratio, start["table"] - first, rtol=1e-4, atol=1e-6
    )


def first_table(values: dict[str, Any]) -> torch.Tensor:
    settings = RunSettings.parse(values)
    world = world_of(settings, load_catalogue(settings), torch.device("cpu"))
    trained = Training.begin(world).trained
    assert trained is not None
    return torch.from_numpy(trained.arrays()["table"])


@pytest.mark.parametrize("noise_by", ["nodes", "server"])
def test_a_run_with_gaussian_noise_has_results(
    data_folder: Path, tmp_path: Path, noise_by: str
) -> None:
    summary = run_here(values_of(data_folder, tmp_path, noise_by=noise_by))
    assert summary["privacy"]["noise_by"] == noise_by
    assert 0 < summary["privacy"]["epsilon_round"] < summary["privacy"]["epsilon"]
    assert summary["test"]["recall@20"] > 0
    assert bool(rounds_of(tmp_path)[0].get("loss")) == (noise_by == "server")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"max_update_norm": 1.0}, "noise_by = server needs max_update_norm = 0"),
        ({"wire_dtype": "float16"}, "noise_by = server needs wire_dtype = float32"),
        ({"nodes_per_round": 1, "fraction": 0.5}, "noise_by = server needs nodes_per_round = 0"),
        ({"gaussian_scale": 0.0}, "noise_by = server needs gaussian_scale"),
        ({"laplace_scale": 1.0}, "two noises"),
        ({"average": "touches"}, "gaussian_scale needs average = users"),
        ({"clip_norm": 0.0}, "gaussian_scale needs clip_norm"),
        ({"warm_after": 3}, "warm_after needs gaussian_scale = 0"),
    ],
)
def test_what_would_break_the_bound_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        RunSettings.parse({"method": "ridge", **GAUSSIAN, "noise_by": "server", **changed})
    if "noise_by = server" in sentence and "gaussian" not in sentence:
        RunSettings.parse({"method": "ridge", **GAUSSIAN, **changed})


def test_noise_of_the_paper_without_a_bound_has_no_epsilon(
    data_folder: Path, tmp_path: Path
) -> None:
    paper = {"average": "users", "laplace_scale": 1.0, "noise_without_epsilon": True}
    shared = {"method": "own-features", "rounds": 1, "baselines": False, "release_metrics": True}
    given = run_values(data_folder, tmp_path, **shared, **paper)
    summary = run_here(given)
    assert "privacy" not in summary or summary["privacy"] is None
    assert "epsilon" not in rounds_of(tmp_path)[0]
    assert summary["test"]["recall@20"] > 0
    with pytest.raises(SnowdropError, match="laplace_scale needs clip_norm"):
        RunSettings.parse({**given, "noise_without_epsilon": False})
    gaussian = {**given, "laplace_scale": 0.0, "gaussian_scale": 1.0}
    with pytest.raises(SnowdropError, match="gaussian_scale needs clip_norm"):
        RunSettings.parse(gaussian)
