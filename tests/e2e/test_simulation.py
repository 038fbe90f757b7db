"""The whole of `snowdrop simulate`, through Flower and Ray, as real processes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import torch
from typer.testing import CliRunner

from cli.commands import app
from cli.in_process import InProcessGrid
from common.settings import RunSettings
from deploy import supervisor
from server_app import run as server_run
from tests.e2e.checkpoints import assert_same_training, newest
from tests.e2e.federation import wait_for

pytestmark = pytest.mark.timeout(900)

SMALL = {
    "dim": 16,
    "rounds": 4,
    "evaluate_every": 2,
    "method": "mdifffr",
    "mdifffr.fit_every": 2,
    "mdifffr.fit_steps": 0,
    "mdifffr.fit_epochs": 2,
    "mdifffr.width": 32,
    "twin": False,
    "nodes_timeout": 60,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    arguments = ["prepare", "demo", "--out", str(folder), "--users", "80", "--items", "120"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return folder


PLAIN = {"method": "own-features", "baselines": False}
"""For runs that show how commands behave: this method begins soonest."""


def chosen_for(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings of a small run, whose own group is left out where the method is another one."""
    method = settings.get("method", SMALL["method"])
    own = {key: v for key, v in SMALL.items() if key.partition(".")[0] == method or "." not in key}
    return own | dict(settings)


def command(data: Path, run_dir: Path, nodes: int, **settings: object) -> list[str]:
    chosen = chosen_for(settings)
    pairs = [part for k, v in chosen.items() for part in ("--set", f"{k}={json.dumps(v)}")]
    arguments = [str(data), "--run-dir", str(run_dir), "--nodes", str(nodes), *pairs]
    return [sys.executable, "-m", "cli.main", "simulate", *arguments]


def environment(home: Path) -> dict[str, str]:
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return os.environ | {"HOME": str(home), "XDG_CACHE_HOME": cache}


def simulate(data: Path, run_dir: Path, nodes: int, **settings: object) -> str:
    done = subprocess.run(
        command(data, run_dir, nodes, **settings),
        env=environment(run_dir.parent),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def processes_of(home: Path) -> set[str]:
    names = set()
    for process in supervisor.started_with("HOME", str(home)):
        with suppress(psutil.Error):  # it ended meanwhile
            names.add(process.name())
    return names


def assert_nothing_is_left_of(home: Path) -> None:
    wait_for(lambda: not processes_of(home), 20, f"all processes of {home} have ended")


@dataclass(frozen=True)
class Simulated:
    """Runs with the same settings on one node and on seven, and what the second one printed."""

    home: Path
    one: Path
    seven: Path
    shown: str

    def summaries(self) -> list[dict[str, Any]]:
        return [json.loads((path / "summary.json").read_text()) for path in (self.one, self.seven)]


@pytest.fixture(scope="module")
def simulated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    home = tmp_path_factory.mktemp("simulated")
    one, seven = home / "one", home / "seven"
    simulate(data, one, 1)
    shown = simulate(data, seven, 7)
    assert_nothing_is_left_of(home)
    return Simulated(home, one, seven, shown)


def test_the_number_of_nodes_does_not_change_the_item_table(
    data: Path, simulated: Simulated
) -> None:
    assert_same_training(simulated.one, simulated.seven)
    one, seven = simulated.summaries()
    assert one["dataset"] == seven["dataset"]
    for name, value in one["baselines"]["random"]["test"].items():
        assert value == pytest.approx(seven["baselines"]["random"]["test"][name])


def test_a_run_shows_and_leaves_what_a_user_wants(data: Path, simulated: Simulated) -> None:
    for told in ("round 4/4", "validation Recall@20", "content profile", "new items for user-"):
        assert told in simulated.shown
    assert simulated.shown.count("results are in") == 1
    assert {path.name for path in simulated.seven.glob("*.png")} == {
        "metrics.png", "embeddings.png"
    }  # fmt: skip
    assert not (simulated.home / ".flwr").exists()
    users = pl.read_csv(data / "interactions.csv")["user_id"].unique().to_list()
    for run in (simulated.one, simulated.seven):
        for name in ("summary.json", "rounds.csv", "settings.json"):
            text = (run / name).read_text()
            assert not any(user in text for user in users)

    result = CliRunner().invoke(app, ["recommend", str(simulated.seven), "--user", users[0]])
    assert result.exit_code == 0
    assert "item-" in result.stdout


def test_in_process_gives_what_flower_gives(
    data: Path, simulated: Simulated, tmp_path: Path
) -> None:
    _, there = simulated.summaries()
    for nodes in (1, 2):
        folder = tmp_path / f"here-{nodes}"
        values = SMALL | {"data": str(data), "run_dir": str(folder), "nodes": nodes}
        server_run.run(InProcessGrid(nodes, values), RunSettings.parse(values), plots=False)
        assert_same_training(folder, simulated.seven)
        here = json.loads((folder / "summary.json").read_text())
        assert here["best_round"] == there["best_round"]
        assert here["tested_users"] == there["tested_users"]
        for split in ("validation", "test"):
            assert here[split] == pytest.approx(there[split], abs=1e-9)


@pytest.mark.parametrize(
    ("method", "beside", "rounds", "secure"),
    [
        ("fedncf", {"scorer"}, 2, False),
        ("fedrap", {"scorer"}, 2, False),
        ("gfmfr:fedncf", {"scorer", "centroids"}, 2, False),
        ("softmax-table", {"log_scale"}, 12, False),  # its loss varies with what each round draws
        ("softmax-table", {"log_scale"}, 12, True),
    ],
)
def test_what_is_beside_heads_and_the_item_table_trains_through_flower(
    data: Path, tmp_path: Path, method: str, beside: set[str], rounds: int, secure: bool
) -> None:
    """Whether sums are secure or not, it is the training that plain sums give in this process."""
    there, here, nodes = tmp_path / "flower", tmp_path / "here", 3 if secure else 2
    few = {"method": method, "rounds": rounds, "evaluate_every": rounds, "dim": 8,
           "fraction": 1.0, "baselines": False}  # fmt: skip
    shown = simulate(data, there, nodes, secure_sums=secure, **few)
    assert re.search(rf"round +{rounds}/{rounds}", shown)
    values = chosen_for(few) | {"data": str(data), "run_dir": str(here), "nodes": nodes}
    server_run.run(InProcessGrid(nodes, values), RunSettings.parse(values), plots=False)
    assert_same_training(here, there)
    states = newest(here), newest(there)
    assert states[0].keys() & {"scorer", "centroids", "log_scale"} == beside
    for name in beside:
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-5, rtol=1.3e-6)
    losses = pl.read_csv(there / "rounds.csv")["loss"]
    assert losses[-1] < losses[0]
    summaries = [json.loads((path / "summary.json").read_text()) for path in (here, there)]
    assert summaries[0]["test"] == pytest.approx(summaries[1]["test"], abs=1e-3)
    assert summaries[1]["tested_users"] == summaries[0]["tested_users"] > 0


def test_one_sum_over_users_travels_through_flower(data: Path, tmp_path: Path) -> None:
    there, here = tmp_path / "flower", tmp_path / "here"
    few = {"method": "one-round", "rounds": 1, "one-round.columns": 6, "baselines": False}
    simulate(data, there, 2, **few)
    values = chosen_for(few) | {"data": str(data), "run_dir": str(here), "nodes": 2}
    server_run.run(InProcessGrid(2, values), RunSettings.parse(values))
    torch.testing.assert_close(newest(here)["mean"], newest(there)["mean"])
    assert newest(here)["chosen"] == newest(there)["chosen"]
    summaries = [json.loads((path / "summary.json").read_text()) for path in (here, there)]
    assert summaries[0]["test"] == pytest.approx(summaries[1]["test"], abs=1e-9)


def test_secure_sums_through_flower_survive_a_node_that_cannot_train(
    data: Path, tmp_path: Path
) -> None:
    """The same training as plain sums give, also in this process, without that node."""
    there, here = tmp_path / "flower", tmp_path / "here"
    for folder in (there, here):  # a file where the node's states should go
        blocked = folder / "nodes" / "00003" / "trainings"
        blocked.parent.mkdir(parents=True)
        blocked.touch()
    few = {**PLAIN, "rounds": 2}
    shown = simulate(data, there, 5, secure_sums=True, **few)
    assert shown.count("is left out of this train: ") == 2
    assert "came to nothing" not in shown
    values = chosen_for(few) | {"data": str(data), "run_dir": str(here), "nodes": 5}
    server_run.run(InProcessGrid(5, values), RunSettings.parse(values), plots=False)
    assert_same_training(here, there)
    plain, secure = (json.loads((path / "summary.json").read_text()) for path in (here, there))
    assert secure["tested_users"] == plain["tested_users"] > 0
    assert secure["dataset"] == plain["dataset"]
    for split in ("validation", "test"):
        assert secure[split] == pytest.approx(plain[split], abs=1e-3)  # 0.1 points
    assert not list(there.glob("nodes/*/sums/*.json"))


def test_ctrl_c_stops_the_run_and_resume_goes_on(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = subprocess.Popen(
        command(data, run_dir, 2, rounds=100_000, **PLAIN),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(r"round +3/", line):
            break
    assert "raylet" in processes_of(tmp_path)
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(60) == 1
    assert "resume=true" in rest
    assert_nothing_is_left_of(tmp_path)

    reached = int(newest(run_dir)["round"])
    assert reached >= 3
    last = reached + 2
    shown = simulate(data, run_dir, 2, rounds=last, resume=True, **PLAIN)
    assert f"going on after round {reached}" in shown
    assert pl.read_csv(run_dir / "rounds.csv")["round"].to_list() == list(range(1, last + 1))


def test_a_failed_run_exits_non_zero_with_its_reason(data: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(data, tmp_path / "run", 2, item_lr=1e37, rounds=6, round_retries=0, **PLAIN),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 1
    assert "the training overflowed on every node in round" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert_nothing_is_left_of(tmp_path)


def test_bad_input_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "simulate", str(tmp_path / "none")],
        env=environment(tmp_path),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"snowdrop: the data folder {tmp_path / 'none'} does not exist"
