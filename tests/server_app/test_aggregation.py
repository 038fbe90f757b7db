"""Averaging of node answers, and what is refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SnowdropError
from common.messages import CountAnswer, EvaluateAnswer, TrainAnswer
from common.settings import RunSettings
from server_app.aggregation import average, check, check_counts, check_metrics

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
        ({"change": np.ones((ITEMS, DIM), np.float16)}, "no float32"),
        ({"change": np.ones((ITEMS, DIM), object)}, "no float32"),
        ({"loss_sum": float("nan")}, "loss"),
        ({"scale": float("nan")}, "scale is NaN"),
        ({"scale": float("inf")}, "scale is NaN, Inf"),
        ({"scale": -1.0}, "not above 0"),
        ({"scale": 0.0}, "not above 0"),
        ({"scale": 1e300}, "no item table can hold"),
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


def test_float16_is_taken_where_it_was_asked_for() -> None:
    half = dataclasses.replace(good_answer(), change=np.ones((ITEMS, DIM), np.float16), scale=4.0)
    check(half, (ITEMS, DIM), RunSettings(wire_dtype="float16"))
    np.testing.assert_array_equal(average([half], "touches").change.numpy(), 2.0)
    with pytest.raises(SnowdropError, match="no float16"):
        check(good_answer(), (ITEMS, DIM), RunSettings(wire_dtype="float16"))


def test_the_bound_on_the_norm_is_for_each_user() -> None:
    norm = float(np.sqrt(ITEMS * DIM))  # of two users
    check(good_answer(), (ITEMS, DIM), RunSettings(max_update_norm=norm / 2 * 1.01))
    for scale, bound in ((1.0, norm / 2 * 0.99), (2.1, norm)):
        with pytest.raises(SnowdropError, match="for 2 users, above max_update_norm"):
            answer = dataclasses.replace(good_answer(), scale=scale)
            check(answer, (ITEMS, DIM), RunSettings(max_update_norm=bound))


def test_a_node_may_claim_so_many_users_wherever_it_counts_them() -> None:
    capped = RunSettings(max_node_users=2)
    check(good_answer(), (ITEMS, DIM), capped)
    check_metrics(EvaluateAnswer(2, ["recall"], [2.0]), ["recall"], capped)
    assert check_counts(CountAnswer(np.array([0, 2])), 2, capped).tolist() == [0, 2]
    with pytest.raises(SnowdropError, match="claims 3 users, above max_node_users = 2"):
        check(dataclasses.replace(good_answer(), users=3), (ITEMS, DIM), capped)
    with pytest.raises(SnowdropError, match="claims 3 users"):
        check_metrics(EvaluateAnswer(3, ["recall"], [2.0]), ["recall"], capped)
    with pytest.raises(SnowdropError, match="claims 3 users"):
        check_counts(CountAnswer(np.array([0, 3])), 2, capped)


@pytest.mark.parametrize(
    "counts", [np.array([1]), np.array([[1, 2]]), np.array([1, -1]), np.array([1.0, 2.0])]
)
def test_counts_that_cannot_be_are_refused(counts: np.ndarray) -> None:
    with pytest.raises(SnowdropError, match="misshapen or negative"):
        check_counts(CountAnswer(counts), 2, RunSettings())
