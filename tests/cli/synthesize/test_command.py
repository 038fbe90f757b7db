"""`snowdrop synthesize`, from a data folder to a folder of synthetic users."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cli.commands import app
from cli.simulate import check_data
from client_app.synthesis.data import read_users
from client_app.synthesis.folder import read_synthetic
from common import methods
from common.demo import MARK
from common.errors import OverflowedError, SnowdropError
from common.settings import RunSettings
from tests.cli.browser import DESKTOP, PHONE, Visit, check_page
from tests.cli.synthesize.conftest import Synthesize, contents

ROOT = Path(__file__).parents[3]
LIKES = "user_id,item_id,liked\n"


def summary_of(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return told


def shop(folder: Path, text: str, name: str = "interactions.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_a_data_folder_of_synthetic_users_is_made(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    told = synthesize(data_folder, out, "--users", 25)
    assert f"{out}: 25 synthetic users" in told
    assert "membership attacks" in told
    assert set(contents(out)) == {"items.csv", "interactions.csv", "summary.json", "report.html"}
    assert (out / "items.csv").read_bytes() == (data_folder / "items.csv").read_bytes()
    made = read_synthetic(out)
    assert made.epsilon is None
    users = made.rows["user_id"].cast(str).unique().sort().to_list()
    assert users == [f"synthetic-{k:02d}" for k in range(25)]
    assert set(made.rows["item_id"].cast(str)) <= set(read_users(data_folder).items)
    settings = RunSettings.parse({"data": str(out), "run_dir": str(tmp_path / "run")})
    assert check_data(settings) == str(out)  # `snowdrop simulate` takes it
    summary = summary_of(out)
    assert summary["method"] == "drawn"
    assert summary["settings"]["epochs"] == 2
    assert (summary["users"], summary["real"]["users"]) == (25, 60)
    assert (summary["real"]["trained"], summary["real"]["held_out"]) == (54, 6)
    assert summary["interactions"] == made.rows.height
    assert set(summary["measured"]["attacks"]) >= {"nearest-jaccard", "likelihood"}
    same_order = f"{summary['measured']['fidelity']['popularity_correlation']:.3f}"
    assert f"items' popularity with that among real users: {same_order}" in told
    assert same_order in (out / "report.html").read_text()
    assert summary["replay"] == []
    assert summary["with_items"] and not summary["warm_only"]


def test_the_seed_makes_the_users(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    made = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        synthesize(data_folder, tmp_path / name, "--seed", seed)
        made[name] = contents(tmp_path / name)["interactions.csv"]
    assert made["first"] == made["again"] != made["other"]
    assert summary_of(tmp_path / "first")["users"] == 60  # as many as are real


def test_options_stand_for_settings_of_the_method(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    options = ["--sampling", "multi", "--epsilon", 2.5, "--set", "drawn.epochs=4"]
    synthesize(data_folder, tmp_path, *options, "--hold-out", 0.3)
    summary = summary_of(tmp_path)
    assert summary["settings"]["sampling"] == "multi"
    assert summary["settings"]["epochs"] == 4
    assert summary["epsilon"] == read_synthetic(tmp_path).epsilon == 2.5
    assert summary["real"]["held_out"] == 18
    page = (tmp_path / "report.html").read_text()
    assert "differential privacy with ε = 2.5" in page
    assert "nothing bounds" not in page


def test_the_method_that_is_taken_where_none_is_named_makes_users(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    quick = {"vae_epochs": 2, "vae_hidden": 8, "vae_latent": 4, "epochs": 2, "steps": 4}
    first = methods.synthesizers()[0]
    options = [f"--set={first}.{name}={value}" for name, value in quick.items()]
    arguments = [str(data_folder), "--out", str(tmp_path), *options, "--users", "30"]
    result = CliRunner().invoke(app, ["synthesize", *arguments])
    assert result.exit_code == 0, result.output
    summary = summary_of(tmp_path)
    assert summary["method"] == first
    assert summary["users"] + summary["users_without_items"] == 30
    assert {name: summary["settings"][name] for name in quick} == quick


@pytest.mark.slow
def test_ctrl_c_ends_a_real_process_with_one_sentence(data_folder: Path, tmp_path: Path) -> None:
    first = methods.synthesizers()[0]
    endless = [f"--set={first}.{name}=1000000" for name in ("vae_epochs", "vae_patience")]
    command = [sys.executable, "-m", "cli.main", "synthesize", data_folder, "--out", tmp_path]
    process = subprocess.Popen(
        [*map(str, command), *endless],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "training" / "own" / "training.state").exists()
        and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.splitlines()[-1].startswith("snowdrop: stopped; the same command goes on")
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


def test_users_that_were_held_out_are_never_seen(synthesize: Synthesize, tmp_path: Path) -> None:
    """Each user has an item of its own, and all synthetic users are copies."""
    rows = "".join(f"u{u},{item},1\n" for u in range(20) for item in ("all", f"own{u}"))
    data = shop(tmp_path / "data", LIKES + rows)
    options = ("--set", "drawn.copies=1", "--users", 2000, "--hold-out", 0.2)
    synthesize(data, tmp_path / "out", *options)
    made = read_synthetic(tmp_path / "out").rows["item_id"].cast(str).unique().to_list()
    assert len(made) == 1 + 16
    measured = summary_of(tmp_path / "out")["measured"]
    assert measured["similarity"]["synthetic"]["copies"] == 2000
    assert measured["attacks"]["nearest-jaccard"]["auc"] == 1
    assert "give members away" in (tmp_path / "out" / "report.html").read_text()


def test_low_ratings_are_no_likes(synthesize: Synthesize, tmp_path: Path) -> None:
    rows = "".join(f"u{u},i{u % 3},1\nu{u},low,0\n" for u in range(12))
    data = shop(tmp_path / "data", LIKES + rows + "cross,low,0\n")
    synthesize(data / "interactions.csv", tmp_path / "out", "--set", "drawn.copies=1")
    made = read_synthetic(tmp_path / "out").rows["item_id"].cast(str).unique().sort().to_list()
    assert made == ["i0", "i1", "i2"]
    summary = summary_of(tmp_path / "out")
    assert summary["real"]["without_likes"] == 1
    assert not summary["with_items"]
    assert not (tmp_path / "out" / "items.csv").exists()


def test_cold_items_stay_unseen(synthesize: Synthesize, data_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_folder, data)
    items = pl.read_csv(data / "items.csv").with_columns(
        split=pl.Series(np.resize(["warm", "test", "warm", "validation"], 80))
    )
    items.write_csv(data / "items.csv")
    warm = set(items.filter(pl.col("split") == "warm")["item_id"].cast(str))
    synthesize(data, tmp_path / "out")
    assert summary_of(tmp_path / "out")["warm_only"]
    assert set(read_synthetic(tmp_path / "out").rows["item_id"].cast(str)) <= warm
    synthesize(data, tmp_path / "all", "--all-items")
    assert not set(read_synthetic(tmp_path / "all").rows["item_id"].cast(str)) <= warm


def test_ctrl_c_stops_and_the_same_command_goes_on(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", ("--set", "drawn.interrupt=1", "--set", "drawn.epochs=3")
    with pytest.raises(SnowdropError, match="stopped; the same command goes on"):
        synthesize(data_folder, out, *options)
    assert not list(out.glob("*.*"))  # nothing but the training
    with pytest.raises(SnowdropError, match="for other synthetic users that was stopped"):
        synthesize(data_folder, out, *options, "--seed", 1)
    synthesize(data_folder, out, *options)
    assert summary_of(out)["cost"]["went_on"]
    assert "training" not in {path.name for path in out.iterdir()}
    synthesize(data_folder, tmp_path / "whole", "--set", "drawn.epochs=3")
    name = "interactions.csv"
    assert contents(out)[name] == contents(tmp_path / "whole")[name]


def test_force_begins_anew_and_keeps_what_is_there_until_then(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    synthesize(data_folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(SnowdropError, match="holds synthetic users; give --force"):
        synthesize(data_folder, tmp_path / "out", "--seed", 1)
    assert contents(tmp_path / "out") == before
    with pytest.raises(SnowdropError, match="stopped"):
        synthesize(data_folder, tmp_path / "out", "--set", "drawn.interrupt=1", "--force")
    now = contents(tmp_path / "out")
    assert {name: now[name] for name in before} == before
    file = data_folder / "interactions.csv"  # which has no items
    synthesize(file, tmp_path / "out", "--seed", 1, "--force")
    after = contents(tmp_path / "out")
    assert set(after) == {"interactions.csv", "summary.json", "report.html"}
    assert after["interactions.csv"] != before["interactions.csv"]


def test_a_folder_of_something_else_is_left_alone(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    real = tmp_path / "real"
    shutil.copytree(data_folder, real)
    before = contents(real)
    for options in ((), ("--force",)):
        with pytest.raises(SnowdropError, match="is there and not of synthetic users"):
            synthesize(data_folder, real, *options)
        with pytest.raises(SnowdropError, match="is the real data"):
            synthesize(real, real, *options)
    assert contents(real) == before
    with pytest.raises(SnowdropError, match="is a file; give a folder"):
        synthesize(data_folder, real / "items.csv")


EVERYONE = "".join(f"u{u},i{item}\n" for u in range(9) for item in range(4))


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("user_id,item_id\n", (), "have no users"),
        (LIKES + "a,1,0\nb,2,0\n", (), "no user has liked an item"),
        ("user_id,item_id\na,1\nb,1\nc,1\n", (), "has one item"),
        ("user_id,item_id\na,1\na,2\n", (), "1 user with --hold-out 0.1: nobody is left"),
        ("user_id,item_id\n" + EVERYONE, ("--users", 0), "--users is 0; ask for 1 or more"),
        ("user_id,item_id\n" + EVERYONE, ("--users", -3), "--users is -3"),
        ("user_id,item_id\n" + EVERYONE, ("--hold-out", 1), "--hold-out is 1; give a share"),
        ("user_id,item_id\n" + EVERYONE, ("--hold-out", "nan"), "--hold-out is nan; give a share"),
        ("user_id,item_id\n" + EVERYONE, ("--device", "abacus"), "--device = 'abacus'"),
        ("user_id,item_id\n" + EVERYONE, ("--warm-only",), "does not say which items are cold"),
        ("user_id,item_id\n" + EVERYONE, ("--replay", 3), "--replay 3 needs 6 held-out users"),
        ("user_id,item_id\n" + EVERYONE, ("--method", "ridge"), "makes no synthetic users"),
        ("user_id,item_id\n" + EVERYONE, ("--set", "rounds=3"), "'rounds' is none of the method"),
        ("user_id,item_id\n" + EVERYONE, ("--epsilon", -1), "setting 'drawn.epsilon' is -1"),
        (
            "user_id,item_id\n" + EVERYONE,
            ("--set", "drawn.overflow=true"),
            "the loss is no number; give a smaller",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    synthesize: Synthesize, tmp_path: Path, text: str, options: tuple[object, ...], sentence: str
) -> None:
    data = shop(tmp_path / "data", text)
    with pytest.raises(SnowdropError, match=sentence) as refused:
        synthesize(data, tmp_path / "out", *options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_interactions_file_that_is_not_there_is_told(
    synthesize: Synthesize, tmp_path: Path
) -> None:
    for data in (tmp_path / "nowhere.csv", shop(tmp_path / "empty", "", "notes.txt")):
        with pytest.raises(SnowdropError, match=r"(nowhere|interactions)\.csv is (not there|miss)"):
            synthesize(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_overflow_leaves_a_folder_as_it_was(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    synthesize(data_folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OverflowedError):
        synthesize(data_folder, tmp_path / "out", "--set", "drawn.overflow=true", "--force")
    assert contents(tmp_path / "out") == before


def test_users_with_everything_are_no_obstacle(synthesize: Synthesize, tmp_path: Path) -> None:
    data = shop(tmp_path / "data", "user_id,item_id\n" + EVERYONE)
    told = synthesize(data, tmp_path / "out")
    assert "rank correlation" not in told
    summary = summary_of(tmp_path / "out")
    assert summary["interactions"] == 9 * 4
    assert summary["measured"]["similarity"]["control"]["copies"] == 1
    assert summary["measured"]["fidelity"]["popularity_correlation"] is None


def test_synthetic_users_without_items_are_counted(synthesize: Synthesize, tmp_path: Path) -> None:
    rows = "".join(f"u{u},i{u}\n" for u in range(20))
    data = shop(tmp_path / "data", "user_id,item_id\n" + rows)
    told = synthesize(data, tmp_path / "out", "--users", 100)
    summary = summary_of(tmp_path / "out")
    assert summary["users"] + summary["users_without_items"] == 100
    assert summary["users_without_items"] > 0
    assert f"left out: {summary['users_without_items']} synthetic users without an item" in told
    with pytest.raises(SnowdropError, match="no synthetic user has an item"):
        synthesize(data, tmp_path / "none", "--set", "drawn.filled=0")


def test_without_held_out_users_no_attack_is_measured(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    told = synthesize(data_folder, tmp_path, "--hold-out", 0)
    assert "attack" not in told
    summary = summary_of(tmp_path)
    assert summary["real"]["held_out"] == 0
    assert summary["measured"]["attacks"] == {}
    assert "no users were held out" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_is_drawn_whole(
    synthesize: Synthesize,
    browser: Any,
    data_folder: Path,
    tmp_path: Path,
    size: dict[str, int],
) -> None:
    data = tmp_path / "<i>shop"
    shutil.copytree(data_folder, data)
    synthesize(data, tmp_path / "out", "--hold-out", 0.3, "--replay", 1)
    visit = Visit(browser, tmp_path / "out" / "report.html", viewport=size)
    check_page(visit, size["width"], least=4)
    text = visit.page.inner_text("main")
    assert "<i>shop" in text
    for title in ("like real users", "copies?", "trained on?", "planted", "guaranteed?"):
        assert title in text
    assert "100 times" in text


def test_users_that_are_made_from_generated_data_are_known_to_be_generated(
    synthesize: Synthesize, data_folder: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(data_folder, tmp_path / "data")
    (data / MARK).write_text("{}")
    synthesize(data, tmp_path / "out")
    assert (tmp_path / "out" / MARK).read_text() == "{}"
    no_people = "whom this page calls real users are no people"
    assert no_people in (tmp_path / "out" / "report.html").read_text()
    synthesize(data / "interactions.csv", tmp_path / "of-a-file")
    assert no_people in (tmp_path / "of-a-file" / "report.html").read_text()
    synthesize(data_folder, tmp_path / "out", "--force")
    assert not (tmp_path / "out" / MARK).exists()
    assert no_people not in (tmp_path / "out" / "report.html").read_text()
