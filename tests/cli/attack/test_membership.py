"""`snowdrop attack membership`, as a user calls it."""

import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm

from common.errors import SnowdropError
from tests.cli.attack.conftest import attack
from tests.cli.browser import PHONE, Visit, check_page


def test_memberships_are_guessed(data_folder: Path, tmp_path: Path, browser: Any) -> None:
    told = attack("membership", data_folder, "--users", 12, "--users-per-node", "1,6",
                  "--rounds", 3, "--out", tmp_path)  # fmt: skip
    assert "updates" in told
    rows = json.loads((tmp_path / "attack.json").read_text())["rows"]
    found = {(row["users_per_node"], row["attack"]): row for row in rows}
    assert found[1, "updates"]["auc"] > 0.99
    assert found[1, "metrics of crafted rankings"]["auc"] > 0.95
    assert found[6, "updates"]["auc"] > 0.7
    for name in ("texts", "cold table", "cold table, against one without these users"):
        assert 0 <= found[None, name]["low"] <= found[None, name]["high"] <= 1
    page = (tmp_path / "report.html").read_text()
    assert "user-" not in page and "item-" not in page
    visit = Visit(browser, tmp_path / "report.html", viewport=PHONE)
    check_page(visit, PHONE["width"], least=1)


def test_secure_sums_hide_whose_metrics_they_are(data_folder: Path, tmp_path: Path) -> None:
    found = {}
    for secure in ("true", "false"):
        attack("membership", data_folder, "--users", 12, "--users-per-node", 1, "--rounds", 1,
               "--set", f"secure_sums={secure}", "--out", tmp_path / secure)  # fmt: skip
        rows = json.loads((tmp_path / secure / "attack.json").read_text())["rows"]
        found[secure] = next(row for row in rows if row["attack"] == "metrics of crafted rankings")
        assert "auc" in rows[-1], rows[-1]  # the table of other users is there, too
    assert found["true"]["auc"] < 0.8 < 0.95 < found["false"]["auc"]
    assert found["true"]["members"] == found["false"]["members"]


def test_a_policy_leaves_nothing_to_guess_from(data_folder: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('format = 1\nanswers = ["query.describe"]\n')
    out = tmp_path / "out"
    attack("membership", data_folder, "--users", 4, "--users-per-node", "1", "--rounds", 1,
           "--policy", policy, "--out", out)  # fmt: skip
    rows = json.loads((out / "attack.json").read_text())["rows"]
    assert all("auc" not in row and "agreed" in row["told"] for row in rows)


def test_too_few_users_are_refused(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="only 60 users"):
        attack("membership", data_folder, "--users", 40, "--users-per-node", "1",
               "--out", tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("noise_by", ["nodes", "server"])
def test_the_bound_of_epsilon_stands_beside_what_was_measured(
    data_folder: Path, tmp_path: Path, noise_by: str
) -> None:
    """Two rounds with σ = 4 C: μ = √2 · 2 / 4, in either case of two values of a user."""
    sets = ("average=users", "clip_norm=0.5", "gaussian_scale=2", "dim=4", f"noise_by={noise_by}")
    told = attack("membership", data_folder, "--users", 12, "--users-per-node", "6", "--rounds", 2,
                  "--out", tmp_path, *(f"--set={one}" for one in sets))  # fmt: skip
    assert "most that ε allows" in told
    rows = json.loads((tmp_path / "attack.json").read_text())["rows"]
    bounds = {row["attack"]: row["bound"] for row in rows}
    bound = pytest.approx(norm.cdf(2**0.5 / 2 / 2**0.5))
    assert bounds.pop("updates") == (bound if noise_by == "nodes" else None)
    assert bounds.pop("cold table, against one without these users") == bound
    assert set(bounds.values()) == {None}
