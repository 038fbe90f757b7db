"""Three silos simulated through Flower; the first sends synthetic users and no updates."""

import json
from pathlib import Path

import pytest

from cli.in_process import InProcessGrid
from common.settings import RunSettings
from server_app import run as server_run
from tests.e2e.checkpoints import assert_same_training
from tests.e2e.federation import snowdrop
from tests.e2e.test_simulation import PLAIN, chosen_for, simulate

pytestmark = pytest.mark.timeout(560)

USERS, ITEMS = 60, 100
SILOS = {
    **PLAIN,
    "answer": "synthetic",
    "synthetic_nodes": 1,
    "synthesizer": "sdrm",
    "sdrm.vae_hidden": 16,
    "sdrm.vae_latent": 4,
    "sdrm.vae_epochs": 2,
    "sdrm.epochs": 2,
    "sdrm.steps": 5,
}


def test_simulated_silos_make_the_same_users_in_flower_and_in_process(tmp_path: Path) -> None:
    data = tmp_path / "data"
    snowdrop("prepare", "demo", "--out", data, "--users", USERS, "--items", ITEMS)
    shown = simulate(data, tmp_path / "flower", 3, **SILOS)
    assert "synthetic users have come from 1 nodes" in shown
    assert "2 nodes train in rounds, 1 do not" in shown
    place = {"data": str(data), "run_dir": str(tmp_path / "here"), "nodes": 3}
    values = {**chosen_for(SILOS), **place}
    server_run.run(InProcessGrid(3, values), RunSettings.parse(values), plots=False)
    assert_same_training(tmp_path / "here", tmp_path / "flower")
    here, there = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("here", "flower")
    )
    assert here["synthetic"] == there["synthetic"]
    assert here["synthetic"]["silos"] == 1
    assert here["test"] == pytest.approx(there["test"], abs=1e-9)
