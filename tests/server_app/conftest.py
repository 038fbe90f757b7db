"""Shared by the tests of the server: runs on a small data folder in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.in_process import InProcessGrid
from common import demo
from common.settings import RunSettings
from server_app import app as server_app

torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other


def theme_features(texts: Sequence[str], *_: object) -> np.ndarray:
    """Stands for the encoder: a centre for each theme, and a little noise, (texts, 24)."""
    rng = np.random.default_rng(11)
    themes = demo.item_themes(len(texts), seed=0)
    centres = rng.normal(size=(len(demo.THEMES), 24))
    return (centres[themes] + 0.3 * rng.normal(size=(len(texts), 24))).astype(np.float32)


def run_values(data: Path, run_dir: Path, **changed: Any) -> dict[str, Any]:
    """A small run's configuration."""
    return {
        "data": str(data),
        "run_dir": str(run_dir),
        "dim": 8,
        "rounds": 4,
        "evaluate_every": 2,
        "generator_every": 2,
        "generator_steps": 0,
        "generator_epochs": 2,
        "denoiser_width": 16,
        "diffusion_steps": 4,
        "head_lr": 2.0,
        "item_lr": 0.5,
        "server_device": "cpu",
        "nodes_timeout": 5.0,
        "round_timeout": 2.0,
        "keep_rounds": 4,
        "neighbour_share": 0.0,
        **changed,
    }


def run_here(values: dict[str, Any], grid: InProcessGrid | None = None) -> dict[str, Any]:
    """A run in this process, with as many nodes as it waits for."""
    settings = RunSettings.parse(values)
    return server_app.run(grid or InProcessGrid(settings.nodes, values), settings)


@pytest.fixture(autouse=True, scope="package")
def _features_without_an_encoder() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_app, "encode", theme_features)
        yield


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots cost more than the run."""
    for name in ("plot_metrics", "plot_embeddings"):
        monkeypatch.setattr(server_app.RunFolder, name, lambda *_: None)
