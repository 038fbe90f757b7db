import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import SnowdropError
from tests.server_app.runs import run_here, run_values


def curves(run_dir: Path) -> dict[str, list[int]]:
    """Steps of each curve."""
    found = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return {tag: [e.step for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_curves_go_on_where_a_run_is_resumed(data_folder: Path, tmp_path: Path) -> None:
    run_here(run_values(data_folder, tmp_path, tensorboard=True, rounds=2))
    run_here(run_values(data_folder, tmp_path, tensorboard=True, resume=True))
    found = curves(tmp_path)
    assert found["training/loss"] == [1, 2, 3, 4]
    assert found["validation/recall@20"] == [2, 4]


def test_a_missing_package_is_told_before_anything_is_trained(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SnowdropError, match="needs the package tensorboard; `pip install"):
        run_here(run_values(data_folder, tmp_path, tensorboard=True))
    assert not (tmp_path / "rounds.csv").exists()


def test_without_the_setting_there_are_none(data_folder: Path, tmp_path: Path) -> None:
    run_here(run_values(data_folder, tmp_path, rounds=1, evaluate_every=1))
    assert not (tmp_path / "tensorboard").exists()
