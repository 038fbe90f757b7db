"""Runs in this process with features that need no encoder."""

from collections.abc import Iterator
from typing import Any

import pytest

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


@pytest.fixture(autouse=True)
def _without_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(server_app, "encode", theme_features)
    yield
