"""Three silos through Flower, as real processes; the first sends synthetic users and no updates."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from cli.in_process import InProcessGrid
from client_app.synthesis.folder import write_synthetic
from common.settings import RunSettings
from server_app import run as server_run
from tests.e2e.checkpoints import assert_same_training, newest
from tests.e2e.federation import Federation, snowdrop
from tests.e2e.test_simulation import SMALL, simulate

pytestmark = pytest.mark.timeout(560)

USERS, ITEMS = 60, 100
MADE = 25


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Federation]:
    """A federation whose first node's owner has looked at synthetic users, and chosen to send."""
    made = Federation(tmp_path / "fed", nodes=3, users=USERS, items=ITEMS)
    items = pl.read_csv(made.data / "items.csv")["item_id"].to_list()
    likes = np.random.default_rng(0).random((MADE, len(items))) < 0.1
    likes[:, 0] = True  # everybody has a warm item
    write_synthetic(
        made.folder / "nodes" / "node-0" / "synthetic", csr_array(likes), items, {"epsilon": 3.0}
    )
    snowdrop("deploy", "answer", made.folder, "node-0", "synthetic")
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.mark.slow
def test_a_silo_sends_synthetic_users_once_and_takes_part_in_no_round(fed: Federation) -> None:
    run = fed.run(round_timeout=200)
    assert run.wait() == "finished:completed", run.log()
    trained = sum(len(fed.users_of(name)) for name in ("node-1", "node-2"))
    assert run.users() == [trained, trained]
    assert run.rounds()["synthetic_users"].to_list() == [MADE, MADE]
    summary = run.summary()
    assert summary["synthetic"]["users"] == MADE
    assert summary["synthetic"]["silos"] == 1
    assert summary["synthetic"]["epsilon"] == 3.0
    assert summary["failed_answers"] == 0, run.log()
    assert summary["dataset"]["users"] == USERS  # all are tested and served
    assert summary["recommended_users"] == USERS
    shown = snowdrop("recommend", fed.state("node-0"), "--user", fed.users_of("node-0")[0])
    assert shown.count("item-") == 5
    heads = sorted(fed.state("node-0").rglob("round-*.state"))
    assert [path.name for path in heads] == ["round-000002.state"]
    (part,) = newest(run.folder)["crowd"]["parts"].values()
    assert len(part["offsets"]) == MADE + 1
    assert "synthetic" in run.log()


SILOS = {
    "baselines": False,
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
    values = {**SMALL, **SILOS, "data": str(data), "run_dir": str(tmp_path / "here"), "nodes": 3}
    server_run.run(InProcessGrid(3, values), RunSettings.parse(values), plots=False)
    assert_same_training(tmp_path / "here", tmp_path / "flower")
    here, there = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("here", "flower")
    )
    assert here["synthetic"] == there["synthetic"]
    assert here["synthetic"]["silos"] == 1
    assert here["test"] == pytest.approx(there["test"], abs=1e-9)
