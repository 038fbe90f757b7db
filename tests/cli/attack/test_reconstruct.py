"""`snowdrop attack reconstruct`, as a user calls it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.commands import app
from common.errors import SnowdropError
from tests.cli.attack.conftest import attack
from tests.cli.browser import PHONE, Visit, check_page


def verdicts(folder: Path, size: int) -> dict[str, dict[str, Any]]:
    told = json.loads((folder / "attack.json").read_text())
    federation = next(one for one in told["federations"] if one["users_per_node"] == size)
    return {verdict["attack"]: verdict for verdict in federation["verdicts"]}


def test_histories_are_read_by_users_on_a_node(
    data_folder: Path, tmp_path: Path, browser: Any
) -> None:
    out = tmp_path / "out"
    told = attack("reconstruct", data_folder, "--users", 6, "--users-per-node", "1,3",
                  "--rounds", 3, "--questions", 40, "--set", "table_start=random",
                  "--out", out)  # fmt: skip
    assert "directions of rows" in told
    assert told.count("another node: what whoever holds one node reads") == 1
    alone = verdicts(out, 1)["directions of rows"]
    assert alone["exact"] == alone["users"] == 6
    counts = verdicts(out, 3)["crafted catalogues, counts"]
    assert counts["precision"] == 1 and counts["linked"] > 0
    written = json.loads((out / "attack.json").read_text())
    assert (written["table_start"], written["seed"], written["rounds"]) == (
        "random", 0, 3,
    )  # fmt: skip
    assert "item-" not in (out / "attack.json").read_text()  # counts alone, no history
    page = (out / "report.html").read_text()
    assert "item-" not in page and "user-" not in page
    assert "Dimensions" in page and "change, touches" in page
    alone = attack("reconstruct", data_folder, "--users", 6, "--users-per-node", "6",
                   "--rounds", 1, "--questions", 0, "--out", tmp_path / "alone")  # fmt: skip
    assert "another node" not in alone
    visit = Visit(browser, out / "report.html", viewport=PHONE)
    check_page(visit, PHONE["width"], least=1)


def test_a_table_of_features_is_no_defence(data_folder: Path, tmp_path: Path) -> None:
    attack("reconstruct", data_folder, "--users", 6, "--users-per-node", "1", "--rounds", 2,
           "--questions", 0, "--out", tmp_path)  # fmt: skip
    assert json.loads((tmp_path / "attack.json").read_text())["table_start"] == "features"
    assert verdicts(tmp_path, 1)["directions of rows"]["exact"] == 6


def test_one_sum_of_pairs_is_read(data_folder: Path, tmp_path: Path) -> None:
    given = ["--set=method=one-round", "--set=encoder=themes", "--set=server_device=cpu"]
    result = CliRunner().invoke(app, [
        "attack", "reconstruct", str(data_folder), "--users", "6", "--users-per-node", "1,6",
        "--questions", "0", "--out", str(tmp_path), *given,
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert verdicts(tmp_path, 1)["sum of pairs"]["exact"] == 6
    assert verdicts(tmp_path, 6)["sum of pairs"]["linked"] > 0
    page = (tmp_path / "report.html").read_text()
    assert "gram" in page and "Dimensions" not in page  # there is no item table


def test_a_policy_shows_as_a_fallen_number(data_folder: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('format = 1\nanswers = ["query.describe"]\nepsilon_total = 1.0\n')
    out = tmp_path / "out"
    attack("reconstruct", data_folder, "--users", 4, "--users-per-node", "1", "--rounds", 2,
           "--policy", policy, "--out", out)  # fmt: skip
    for verdict in verdicts(out, 1).values():
        assert verdict["claimed"] == 0
        assert "agreed" in verdict["told"] or "tells no counts" in verdict["told"]
    assert "What stopped attacks" in (out / "report.html").read_text()


def test_masked_answers_are_attacked_as_one_sum(data_folder: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("format = 1\nsecure_sums = true\nfewest_participants = 3\n")
    attack("reconstruct", data_folder, "--users", 6, "--users-per-node", "1", "--rounds", 2,
           "--questions", 20, "--set", "secure_sums=true", "--policy", policy,
           "--out", tmp_path / "masked")  # fmt: skip
    attack("reconstruct", data_folder, "--users", 6, "--users-per-node", "6", "--rounds", 2,
           "--questions", 0, "--out", tmp_path / "plain")  # fmt: skip
    masked = verdicts(tmp_path / "masked", 1)
    plain = verdicts(tmp_path / "plain", 6)
    touches = "touches over rounds"  # of the same sum, but for the negatives
    assert masked[touches]["interactions"] == plain[touches]["interactions"]
    assert abs(masked[touches]["claimed"] - plain[touches]["claimed"]) <= 8
    crafted = [verdict for name, verdict in masked.items() if "crafted" in name]
    assert len(crafted) == 3 and all(not verdict["claimed"] for verdict in crafted)


def test_rounds_with_few_drawn_users_are_read_user_by_user(
    data_folder: Path, tmp_path: Path
) -> None:
    attack("reconstruct", data_folder, "--users", 8, "--users-per-node", 4, "--rounds", 6,
           "--questions", 0, "--differences", 0, "--set", "fraction=0.25", "--set", "dim=16",
           "--out", tmp_path)  # fmt: skip
    found = verdicts(tmp_path, 4)["directions of rows"]
    assert found["exact"] == found["linked"] >= 6
    assert found["precision"] > 0.95


def test_noise_shows_as_a_fallen_number(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    attack("reconstruct", data_folder, "--users", 4, "--users-per-node", "1", "--rounds", 2,
           "--questions", 0, "--set", "average=users", "--set", "clip_norm=1",
           "--set", "gaussian_scale=50", "--out", out)  # fmt: skip
    assert verdicts(out, 1)["directions of rows"]["exact"] == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--users-per-node", "1,x"], "is no list of numbers"),
        (["--users-per-node", "0"], "is no list of numbers"),
        (["--users-per-node", "30", "--users", "10"], "--users-per-node has 30, but --users is 10"),
        (["--users", "61", "--users-per-node", "1"], "only 60 users"),
        (["--set", "nodes=3"], "--set nodes: nodes follow from the users"),
        (["--policy", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_what_cannot_be_is_refused(
    data_folder: Path, tmp_path: Path, options: list[str], sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        attack("reconstruct", data_folder, *options, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_do_not_go_into_a_file(data_folder: Path) -> None:
    with pytest.raises(SnowdropError, match="is a file; give --out a folder"):
        attack("reconstruct", data_folder, "--out", data_folder / "items.csv")
