"""What a round costs in privacy: the column of ``rounds.csv``, and what is logged."""

from pathlib import Path
from typing import Any

import pytest

from common.settings import RunSettings
from server_app.accountant import columns, tell
from tests.server_app.runs import rounds_of, run_here, run_values


def private(**changed: Any) -> RunSettings:
    return RunSettings.parse({"average": "users", "clip_norm": 0.5, "rounds": 10, **changed})


def test_epsilon_is_twice_the_bound_over_the_scale() -> None:
    assert columns(private(laplace_scale=0.25)) == {"epsilon": pytest.approx(4.0)}
    assert columns(private()) == {}


def test_a_run_says_what_it_spends(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "snowdrop"):
        tell(private())
        assert not caplog.records
        tell(private(laplace_scale=0.25))
    assert "ε = 2 C / δ = 4 per round, 40 over 10 rounds" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(("scale", "absurd"), [(0.11, False), (0.1, True), (1e-3, True)])
def test_an_absurd_epsilon_is_called_so(
    caplog: pytest.LogCaptureFixture, scale: float, absurd: bool
) -> None:
    with caplog.at_level("WARNING", "snowdrop"):
        tell(private(laplace_scale=scale))
    assert ("per round protects nobody" in caplog.text) == absurd


def test_every_round_has_its_epsilon(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private_values = {"average": "users", "clip_norm": 0.5, "laplace_scale": 0.02}
    values = run_values(
        data_folder, tmp_path, method="own-features", baselines=False, rounds=2, **private_values
    )
    with caplog.at_level("INFO", "snowdrop"):
        run_here(values)
    assert [float(row["epsilon"]) for row in rounds_of(tmp_path)] == [50.0, 50.0]
    assert "ε = 50 per round protects nobody" in caplog.text


def test_without_noise_there_is_no_column(data_folder: Path, tmp_path: Path) -> None:
    run_here(run_values(data_folder, tmp_path, method="own-features", baselines=False, rounds=1))
    assert "epsilon" not in rounds_of(tmp_path)[0]
