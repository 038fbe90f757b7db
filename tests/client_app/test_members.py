"""A federation of some of the users: whose updates leave a node, and what the others get."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.users.randomness import user_keys
from common.users.training import members
from tests.server_app.runs import rounds_of, run_here, run_values, state_of

KEYS = user_keys(b"secret", [str(user) for user in range(400)])


@given(shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_a_smaller_federation_is_part_of_a_larger_one(shares: tuple[float, float]) -> None:
    small, large = (members(KEYS, share) for share in sorted(shares))
    assert not (small & ~large).any()
    assert abs(small.mean() - min(shares)) < 0.15
    assert members(KEYS, 1.0).all()


@pytest.mark.parametrize("method", ["own-features", "one-round"])
def test_a_federation_does_not_depend_on_how_users_share_nodes(
    data_folder: Path, tmp_path: Path, method: str
) -> None:
    """Nodes with members, and with none; all users are tested."""
    results: list[Any] = []
    for nodes in (1, 7, 30):
        folder = tmp_path / str(nodes)
        changed = {"method": method, "rounds": 2, "nodes": nodes, "federated": 0.1}
        summary = run_here(run_values(data_folder, folder, baselines=False, **changed))
        name = "mean" if method == "one-round" else "table"
        results.append((summary["test"], state_of(folder, 2)[name], summary["tested_users"]))
        assert {int(row["users"]) for row in rounds_of(folder)} < {*range(1, 15)}
    whole = run_here(run_values(data_folder, tmp_path / "all", baselines=False, **changed | {
        "federated": 1.0, "nodes": 1}))  # fmt: skip
    assert results[0][2] == whole["tested_users"]
    for test, learnt, users in results[1:]:
        torch.testing.assert_close(learnt, results[0][1], atol=1e-5, rtol=0)
        assert test == pytest.approx(results[0][0], abs=0.02)
        assert users == whole["tested_users"]


def test_members_train_as_if_the_others_were_not_there(data_folder: Path, tmp_path: Path) -> None:
    """And the others fit heads as good as theirs."""
    changed = {"method": "own-features", "rounds": 2, "baselines": False, "nodes": 1}
    run_here(run_values(data_folder, tmp_path / "half", federated=0.5, **changed))
    inside = members_of(data_folder)
    lines = (data_folder / "interactions.csv").read_text().splitlines()
    alone = tmp_path / "data"
    alone.mkdir()
    (alone / "items.csv").write_text((data_folder / "items.csv").read_text())
    kept = [line for line in lines[1:] if line.split(",")[0] in inside]
    (alone / "interactions.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    run_here(run_values(alone, tmp_path / "alone", **changed))
    half, whole = (state_of(tmp_path / name, 2)["table"] for name in ("half", "alone"))
    torch.testing.assert_close(half, whole, atol=1e-5, rtol=0)
    assert 10 < len(inside) < 50


def members_of(folder: Path) -> set[str]:
    lines = (folder / "interactions.csv").read_text().splitlines()[1:]
    users = sorted({line.split(",")[0] for line in lines})
    keys = user_keys(b"snowdrop simulation 0", users)
    return set(np.array(users)[members(keys, 0.5)])
