"""Runs whose nodes say no: what the server's log and results say then."""

from pathlib import Path

import pytest

from common.errors import SnowdropError
from tests.server_app.runs import rounds_of, run_here, run_values

NOISE = {  # ε = 0.5 in a round
    "average": "users",
    "clip_norm": 0.5,
    "laplace_scale": 2.0,
    "release_metrics": True,
}


def policy(folder: Path, text: str) -> str:
    path = folder / "policy.toml"
    path.write_text(text)
    return str(path)


def test_a_run_ends_when_every_nodes_epsilon_is_spent(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agreed = policy(tmp_path, 'epsilon_total = 1.0\nwithout_noise = ["evaluate"]')
    values = run_values(
        data_folder, tmp_path / "run", method="own-features", baselines=False, rounds=4,
        policy=agreed, **NOISE,
    )  # fmt: skip
    with pytest.raises(SnowdropError, match="no node has agreed to round 3; the warnings above"):
        run_here(values)
    assert "epsilon_total: its ε is spent" in caplog.text
    assert "trying again" not in caplog.text
    assert len(rounds_of(tmp_path / "run")) == 2
    other = {**values, "run_dir": str(tmp_path / "run"), "fresh": True}
    with pytest.raises(SnowdropError, match="no node has agreed to round 1"):  # a new training
        run_here(other)


def test_a_run_without_answers_about_metrics_has_no_results(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agreed = policy(tmp_path, 'answers = ["train", "query.describe", "query.recommend"]')
    values = run_values(
        data_folder, tmp_path / "run", method="own-features", rounds=2, policy=agreed
    )
    summary = run_here(values)
    assert "test" not in summary
    assert summary["baselines"] == {}
    assert summary["best_round"] is None
    assert summary["recommended_users"] > 0
    assert "evaluate: answers: this kind of message is not among" in caplog.text
    assert "no node has told how its users' test items are ranked" in caplog.text


def test_counts_that_a_policy_withholds_are_unknown(data_folder: Path, tmp_path: Path) -> None:
    agreed = policy(tmp_path, 'epsilon_total = 9.0\nwithout_noise = ["train", "evaluate"]')
    values = run_values(
        data_folder, tmp_path / "run", method="own-features", baselines=False, rounds=1,
        policy=agreed,
    )  # fmt: skip
    dataset = run_here(values)["dataset"]
    assert dataset["users"] > 0
    assert dataset["interactions"] == {"warm": None, "validation": None, "test": None}
    assert dataset["users_without_warm"] is dataset["unknown_interactions"] is None
