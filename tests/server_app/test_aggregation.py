"""Averaging of node answers, and what is refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SnowdropError
from common.messages import TrainAnswer
from common.settings import RunSettings
from server_app.aggregation import average, check

ITEMS, DIM = 5, 3


def answer_of(changes: np.ndarray, touched: np.ndarray, losses: np.ndarray) -> TrainAnswer:
    """What a node with these users sends."""
    return TrainAnswer(
        users=len(changes),
        loss_sum=float(losses.sum()),
        change=changes.sum(0).astype(np.float32),
        touches=touched.sum(0).astype(np.int64),
    )


def good_answer() -> TrainAnswer:
    return TrainAnswer(2, 1.0, np.ones((ITEMS, DIM), np.float32), np.full(ITEMS, 2))


@given(
    nodes=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    by=st.sampled_from(["users", "touches"]),
    seed=st.integers(0, 1_000),
)
def test_average_is_the_mean_over_users_however_they_are_split(
    nodes: list[int], by: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    users = np.asarray(nodes)
    touched = rng.random((len(users), ITEMS)) < 0.6
    changes = rng.normal(size=(len(users), ITEMS, DIM)) * touched[:, :, None]
    losses = rng.random(len(users))
    answers = [
        answer_of(changes[users == node], touched[users == node], losses[users == node])
        for node in range(5)
    ]
    averaged = average(answers, by)
    expected = np.zeros((ITEMS, DIM))
    for item in range(ITEMS):
        divisor = len(users) if by == "users" else max(1, int(touched[:, item].sum()))
        for user in range(len(users)):
            expected[item] += changes[user, item] / divisor
    np.testing.assert_allclose(averaged.change.numpy(), expected, atol=1e-5)
    assert averaged.change.numpy().dtype == np.float32
    assert averaged.users == len(users)
    assert averaged.loss == pytest.approx(losses.mean())


def test_no_users_cannot_be_averaged() -> None:
    nobody = TrainAnswer(0, 0.0, np.zeros((ITEMS, DIM), np.float32))
    for answers in ([], [nobody]):
        with pytest.raises(SnowdropError, match="no user trained"):
            average(answers, "users")


def test_a_good_answer_passes() -> None:
    check(good_answer(), (ITEMS, DIM), RunSettings())


def test_touches_are_only_needed_where_they_are_used() -> None:
    check(
        dataclasses.replace(good_answer(), touches=None), (ITEMS, DIM), RunSettings(average="users")
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"change": np.ones((ITEMS + 1, DIM), np.float32)}, "shape"),
        ({"change": np.ones(ITEMS * DIM, np.float32)}, "shape"),
        ({"change": np.full((ITEMS, DIM), np.nan, np.float32)}, "NaN"),
        ({"change": np.full((ITEMS, DIM), -np.inf, np.float32)}, "Inf"),
        ({"change": np.ones((ITEMS, DIM), np.int64)}, "no float32"),
        ({"users": -1}, "claims -1 users"),
        ({"users": 0}, "claims 0 users"),
        ({"loss_sum": float("nan")}, "loss"),
        ({"touches": None}, "missing"),
        ({"touches": np.full(ITEMS + 1, 1)}, "misshapen"),
        ({"touches": np.ones(ITEMS, np.float32)}, "misshapen"),
        ({"touches": np.full(ITEMS, -1)}, "touched rows"),
        ({"touches": np.full(ITEMS, 3)}, "exceed its users"),
        ({"touches": np.full(ITEMS, 0)}, "rows that no user touched"),
    ],
)
def test_check_refuses(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        check(dataclasses.replace(good_answer(), **changed), (ITEMS, DIM), RunSettings())
