"""Histories read from gradients of a softmax, made by the code of nodes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.attack.histories import SOFTMAX, Known, people_in_softmax, read
from cli.attack.seen import Seen, added
from cli.attack.softmax import histories_in
from common.settings import TrainingSettings
from common.users.mechanism import Mechanism, Unchanged, mechanism_of
from common.users.ragged import Ragged
from common.users.randomness import user_keys
from common.users.softmax import softmax_sums
from tests.cli.attack.conftest import attack
from tests.cli.attack.constructed import histories, rounds_of

WARM, DIM, LOG_SCALE = 300, 48, 2.0
TABLE = torch.randn(WARM, DIM, generator=torch.Generator().manual_seed(0)) / DIM**0.5
SENT = {"table": TABLE.numpy(), "log_scale": np.array([[LOG_SCALE]], np.float32)}
KNOWN = Known(WARM, 5, 1.0, 0.0)
SETTINGS = [f"--set={one}" for one in ("method=softmax-table", "encoder=themes", "dim=16",
                                       "server_device=cpu", "fraction=1")]  # fmt: skip
NOISE = ("average=users", "clip_norm=1", "gaussian_scale=4.22544")


def answer(
    own: Sequence[np.ndarray],
    number: int = 1,
    mechanism: Mechanism | None = None,
    sampled: np.ndarray | None = None,
    there: Sequence[int] | None = None,
) -> Seen:
    """What a node with these users answers, or with those of them that are there."""
    place = np.arange(len(own)) if there is None else np.asarray(there)
    lists = [own[k] for k in place]
    ragged = Ragged(np.cumsum([0, *map(len, lists)]), np.concatenate(lists))
    keys = user_keys(b"secret", [str(user) for user in range(len(own))])[place]
    sums = softmax_sums(TABLE, LOG_SCALE, ragged, keys, number, mechanism or Unchanged(), sampled)
    change = sums.change.numpy()
    unit = 1.0 if change.dtype.kind == "f" else 2.0**-30
    return Seen("node", number, len(own), {"change": (change * unit).astype(np.float32)}, SENT)


def lists(found: Sequence[np.ndarray]) -> set[tuple[int, ...]]:
    return {tuple(one.tolist()) for one in found}


@pytest.mark.parametrize("length", [2, 3, 12, 60])
@pytest.mark.parametrize("sampled", [None, 150])
def test_one_user_is_read_exactly(length: int, sampled: int | None) -> None:
    drawn = None if sampled is None else np.random.default_rng(5).choice(WARM, sampled, False)
    for own in histories(5, length, seed=length, warm=WARM):
        assert lists(histories_in(answer([own], sampled=drawn))) == lists([own])


def test_a_crowd_is_read_exactly_though_it_shares_items() -> None:
    own = [np.union1d(one, [7, 8]) for one in histories(12, 9, warm=WARM)]
    assert len(np.unique(np.concatenate(own))) < sum(map(len, own)) - 20
    found = lists(histories_in(answer(own)))
    assert len(found & lists(own)) >= 10
    assert lists(own) == lists(people_in_softmax([answer(own, k) for k in range(1, 6)], KNOWN))


def test_people_are_tied_together_over_rounds() -> None:
    own = histories(8, 9, warm=WARM)
    rounds = [answer(own, number, there=[number % 8, (number + 3) % 8]) for number in range(1, 17)]
    known = Known(WARM, 5, 0.25, 0.0)
    (reading,) = [one for one in read(rounds, known) if one.attack == SOFTMAX]
    assert lists(reading.people["node"]) == lists(own)
    assert len(reading.people["node"]) == 8


def test_users_of_one_item_do_not_disturb() -> None:
    own = histories(3, 9, warm=WARM)
    assert lists(histories_in(answer([*own, np.array([1])]))) == lists(own)


def test_masked_answers_are_read_as_one() -> None:
    own = histories(6, 9, warm=WARM)
    (seen,) = added([answer(own[:3]), answer(own[3:])], "all")
    assert lists(histories_in(seen)) == lists(own)


def test_more_users_than_half_of_the_dimensions_are_not_told_apart() -> None:
    assert histories_in(answer(histories(40, 9, warm=WARM))) == []


def test_contexts_on_most_rows_are_not_told_apart() -> None:
    assert histories_in(answer(histories(10, 150, warm=WARM))) == []


@pytest.mark.parametrize("noise_by", ["nodes", "server"])
def test_noise_is_not_taken_for_people(noise_by: str) -> None:
    settings = TrainingSettings.model_validate(
        {"clip_norm": 1.0, "average": "users", "gaussian_scale": 4.22544, "noise_by": noise_by}
    )
    seen = answer(histories(1, 9, warm=WARM), mechanism=mechanism_of(settings))
    found = histories_in(seen)
    assert found == [] if noise_by == "nodes" else len(found) == 1  # whom the server sees


def test_a_table_without_a_change_says_nothing() -> None:
    assert histories_in(answer([np.array([1])])) == []


def test_gradients_of_something_else_are_not_taken_for_a_softmax() -> None:
    for users in (1, 3):
        for seen in rounds_of(histories(users, 8, warm=WARM), 3, known=KNOWN, dims=DIM):
            assert histories_in(Seen("node", 1, users, seen.sums, SENT)) == []
    assert SOFTMAX not in [one.attack for one in read([seen], KNOWN)]


def verdict(data: Path, out: Path, *options: object) -> dict[str, Any]:
    """Of the server's reading, with one user on each of six nodes."""
    given = ["--users", 6, "--users-per-node", 1, "--rounds", 2, "--questions", 0]
    attack("reconstruct", data, *given, "--differences", 0, "--out", out, *options,
           settings=SETTINGS)  # fmt: skip
    (federation,) = json.loads((out / "attack.json").read_text())["federations"]
    return next(one for one in federation["verdicts"] if one["attack"] == SOFTMAX)


def test_the_command_reads_one_user_nodes(data_folder: Path, tmp_path: Path) -> None:
    found = verdict(data_folder, tmp_path)
    assert found["exact"] == found["users"] == 6


def test_the_command_reads_nothing_out_of_noise(data_folder: Path, tmp_path: Path) -> None:
    sets = [f"--set={one}" for one in NOISE]
    assert verdict(data_folder, tmp_path, *sets)["claimed"] == 0
