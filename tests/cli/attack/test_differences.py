"""Sums that differ by few users."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.attack.differences import GROUPS, JOINED, subtracted
from cli.attack.seen import Seen
from tests.cli.attack.conftest import SETTINGS, attack
from tests.cli.attack.constructed import KNOWN


def read(
    data: Path, out: Path, *options: object, settings: Sequence[str] = SETTINGS
) -> dict[str, dict[str, Any]]:
    """Verdicts on differences, on nodes with two users each."""
    shared = ["--users", 8, "--users-per-node", 2, "--rounds", 1, "--questions", 0,
              "--differences", 2, "--out", out]  # fmt: skip
    attack("reconstruct", data, *shared, *options, settings=settings)
    verdicts = json.loads((out / "attack.json").read_text())["federations"][0]["verdicts"]
    return {one["attack"]: one for one in verdicts if one["attack"] in (JOINED, GROUPS)}


def test_what_is_left_is_of_the_users_who_make_the_difference() -> None:
    known = KNOWN.__class__(warm=300, negatives=5, fraction=1.0, noise=2.0)
    later = Seen("all", 1, 5, {"change": np.full((2, 1), 4, np.float32), "touches": np.array([3])})
    earlier = Seen("all", 1, 4, {"change": np.ones((2, 1), np.float32), "touches": np.array([1])})
    left, noise = subtracted(later, earlier, known)
    assert (left.source, left.round, left.users) == ("all", 1, 1)
    assert left.sums["change"].tolist() == [[3], [3]] and left.sums["touches"].tolist() == [2]
    assert noise.noise_in(left.users) == pytest.approx(2 * 9**0.5, rel=1e-4)  # 5 users and 4


def test_a_user_who_joins_a_node_is_read_from_plain_sums(data_folder: Path, tmp_path: Path) -> None:
    found = read(data_folder, tmp_path)
    assert found.keys() == {JOINED}
    assert found[JOINED]["exact"] == found[JOINED]["users"] == 4  # one of each node


def test_secure_sums_are_no_help(data_folder: Path, tmp_path: Path) -> None:
    found = read(data_folder, tmp_path, "--set", "secure_sums=true")
    assert found[JOINED]["exact"] == found[JOINED]["users"] == 2  # there is one sum each time
    assert found[GROUPS]["users"] == 4 and found[GROUPS]["linked"] >= 2
    (written,) = tmp_path.rglob("attack.json")
    assert json.loads(written.read_text())["settings"].items() >= {"secure_sums": "True"}.items()


def test_the_sum_of_pairs_is_read(data_folder: Path, tmp_path: Path) -> None:
    given = ["method=one-round", "secure_sums=true", "encoder=themes", "server_device=cpu"]
    found = read(data_folder, tmp_path, settings=[f"--set={one}" for one in given])
    assert found[JOINED]["exact"] == found[JOINED]["users"] == 2
    assert found[GROUPS]["exact"] == found[GROUPS]["users"] == 4


def test_noise_stops_it(data_folder: Path, tmp_path: Path) -> None:
    found = read(data_folder, tmp_path, "--set", "average=users", "--set", "clip_norm=1",
                 "--set", "gaussian_scale=20")  # fmt: skip
    assert found[JOINED]["exact"] == found[JOINED]["linked"] == 0


def test_a_node_that_insists_on_all_others_is_in_no_smaller_sum(
    data_folder: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("format = 1\nsecure_sums = true\nfewest_participants = 4\n")
    given = ["--set", "secure_sums=true", "--policy", policy]
    found = read(data_folder, tmp_path / "out", *given)
    assert not found[GROUPS]["claimed"] and "has not agreed" in found[GROUPS]["told"]
    assert found[JOINED]["exact"] == found[JOINED]["users"]  # nothing of this stops that
