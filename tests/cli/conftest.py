"""A small data folder, and runs on it in this process with features that need no encoder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from client_app.demo import demo_interactions
from common import demo
from server_app import app as server_app
from tests.server_app.conftest import theme_features

QUICK: dict[str, Any] = {
    "dim": 8,
    "rounds": 4,
    "evaluate_every": 2,
    "generator_steps": 4,
    "denoiser_width": 16,
    "diffusion_steps": 4,
    "server_device": "cpu",
}


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users and 80 items, without a split of its own."""
    folder = tmp_path_factory.mktemp("data")
    titles = [title for title, _ in demo.demo_texts(80, seed=0)]
    items = pl.DataFrame({"item_id": demo.item_ids(80), "title": titles})
    items.write_csv(folder / "items.csv")
    demo_interactions(60, 80, 20, seed=0).write_csv(folder / "interactions.csv")
    return folder


@pytest.fixture(autouse=True)
def _without_encoder_and_plots(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(server_app, "encode", theme_features)
    for name in ("plot_metrics", "plot_embeddings"):
        monkeypatch.setattr(server_app.RunFolder, name, lambda *_: None)
    yield
