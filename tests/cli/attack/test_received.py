"""What another node reads out of what it is sent."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from cli.attack.histories import people_in_changes, people_in_pairs
from cli.attack.received import BY_NODE, sums_of
from common import messages
from common.users.item_sums import gram_sum, sketch_sum, unpacked
from common.users.ragged import Ragged
from server_app.item_weights import directions_of_gram, directions_of_sketch, text_basis
from tests.cli.attack.conftest import SETTINGS, attack
from tests.cli.attack.constructed import KNOWN, histories, rounds_of

OF_PAIRS = [f"--set={one}" for one in ("method=one-round", "encoder=themes", "server_device=cpu")]


def read(
    data: Path, out: Path, *options: object, settings: Sequence[str] = SETTINGS
) -> dict[str, dict[str, Any]]:
    """Verdicts on what a node reads, of four nodes with two users each."""
    attack("reconstruct", data, "--users", 8, "--users-per-node", 2, "--questions", 0,
           "--differences", 0, "--out", out, *options, settings=settings)  # fmt: skip
    verdicts = json.loads((out / "attack.json").read_text())["federations"][0]["verdicts"]
    return {
        one["attack"].removeprefix(BY_NODE): one
        for one in verdicts
        if one["attack"].startswith(BY_NODE)
    }


@pytest.mark.parametrize("secure", ["false", "true"])
def test_the_sum_of_pairs_is_read_from_what_nodes_are_sent(
    data_folder: Path, tmp_path: Path, secure: str
) -> None:
    found = read(data_folder, tmp_path, f"--set=secure_sums={secure}", settings=OF_PAIRS)
    assert found["sum of pairs"]["exact"] == found["sum of pairs"]["users"] == 6  # the others


def test_item_tables_of_two_rounds_are_read(data_folder: Path, tmp_path: Path) -> None:
    given = ["--users", 4, "--users-per-node", 1, "--rounds", 4]
    sets = ["secure_sums=true", "average=users", "negatives=1", "dim=16"]
    found = read(data_folder, tmp_path, *given, *(f"--set={one}" for one in sets))
    assert found["directions of rows"]["users"] == 3
    assert found["directions of rows"]["linked"] > 0


def test_noise_of_the_sum_leaves_nothing(data_folder: Path, tmp_path: Path) -> None:
    noise = ("secure_sums=true", "noise_by=sum", "average=users", "clip_norm=1", "gaussian_scale=4")
    sets = [*OF_PAIRS, *(f"--set={one}" for one in noise)]
    found = read(data_folder, tmp_path, settings=sets)
    assert all(not verdict["claimed"] for verdict in found.values())


def test_noise_of_the_server_is_in_what_nodes_are_sent(data_folder: Path, tmp_path: Path) -> None:
    given = ["--users", 4, "--users-per-node", 1, "--rounds", 4]
    sets = ["noise_by=server", "average=users", "clip_norm=1", "gaussian_scale=0.05", "dim=16"]
    found = read(data_folder, tmp_path, *given, *(f"--set={one}" for one in sets))
    assert found and all(not verdict["claimed"] for verdict in found.values())


def test_one_node_alone_reads_nobody(data_folder: Path, tmp_path: Path) -> None:
    given = ["--users-per-node", 8]  # the last one counts
    assert read(data_folder, tmp_path, *given, settings=OF_PAIRS) == {}


def sent(kind: str, **arrays: np.ndarray) -> Message:
    """A message to a node that carries some arrays."""
    header = {"catalogue": "c", "training": "t", "round": 1, "settings": "{}", "arrays": arrays}
    if kind == messages.TRAIN:
        return Message(messages.TrainRequest(best_round=0, **header).to_record(), 2, kind)
    own = {"top": 1, "scorer": "s", "method": "m"}
    return Message(messages.RecommendRequest(**own, **header).to_record(), 2, kind)


def ragged(lists: Sequence[np.ndarray]) -> Ragged:
    return Ragged(np.cumsum([0, *map(len, lists)]), np.concatenate(lists))


def gains_of(sizes: np.ndarray) -> np.ndarray:
    return (sizes / (sizes + 0.03))[None].astype(np.float32)


def test_tables_give_the_sum_of_changes() -> None:
    own = histories(3, 6)
    rounds = rounds_of(own, 3)
    table, heard = np.ones((KNOWN.warm, 16), np.float32), []
    for seen in rounds:
        heard.append(sent(messages.TRAIN, table=table))
        table = table + np.float32(0.5 / 3) * seen.sums["change"].astype(np.float32)
    seen, known = sums_of(heard, 0.5, 3, KNOWN)
    assert [one.round for one in seen] == [1, 2]  # nobody is sent what came of the last one
    for one, true in zip(seen, rounds, strict=False):
        np.testing.assert_allclose(one.sums["change"], true.sums["change"], atol=1e-5)
    found = {tuple(claim) for claim in people_in_changes(seen, known)}
    assert found == {tuple(one) for one in own}


def test_directions_give_the_sum_of_pairs() -> None:
    own = histories(20, 8)
    total = gram_sum(ragged(own), KNOWN.warm)
    axes, sizes = directions_of_gram(unpacked((total / 20).astype(np.float32), KNOWN.warm), 256)
    heard = [sent(messages.QUERY_RECOMMEND, axes=axes, gains=gains_of(sizes))]
    (seen,), known = sums_of(heard, 1.0, 20, KNOWN)
    np.testing.assert_allclose(seen.sums["gram"], total, atol=1e-5)
    assert {tuple(one) for one in people_in_pairs(seen, known)} == {tuple(one) for one in own}


def test_directions_of_a_sketch_give_the_sketch() -> None:
    own = [np.array([1, 5, 9]), np.array([2, 6, 7, 8]), np.array([20, 30, 40])]
    units = np.random.default_rng(0).normal(size=(KNOWN.warm, 40)).astype(np.float32)
    basis = text_basis(units / np.linalg.norm(units, axis=1, keepdims=True), 20)
    mean = (sketch_sum(ragged(own), basis) / 3).astype(np.float32)
    axes, sizes = directions_of_sketch(mean, basis, 256)
    heard = [
        sent(messages.TRAIN, basis=basis),
        sent(messages.QUERY_RECOMMEND, axes=axes, gains=gains_of(sizes)),
    ]
    (seen,), known = sums_of(heard, 1.0, 3, KNOWN)
    found = {tuple(one) for one in people_in_pairs(seen, known)}
    assert found == {tuple(one) for one in own}
