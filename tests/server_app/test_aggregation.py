"""Node answers → sums over users, and what is refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from common.errors import OverflowedError, SnowdropError
from common.messages import CountAnswer, EvaluateAnswer, TrainAnswer
from common.settings import RunSettings
from server_app.aggregation import (
    Expected,
    NoisySum,
    PlainSum,
    Summed,
    check,
    check_counts,
    check_metrics,
)

ITEMS, DIM = 5, 3
EXPECTED = {
    "change": Expected((ITEMS, DIM), bounded=True),
    "touches": Expected((ITEMS,), counts="change"),
}
ONES = np.ones((ITEMS, DIM), np.float32)


def answer_of(changes: np.ndarray, touched: np.ndarray, losses: np.ndarray) -> TrainAnswer:
    """What a node with these users sends."""
    sums = {
        "change": changes.sum(0).astype(np.float32),
        "touches": touched.sum(0).astype(np.int64),
    }
    return TrainAnswer(len(changes), float(losses.sum()), sums)


def good_answer(**sums: np.ndarray) -> TrainAnswer:
    return TrainAnswer(2, 1.0, {"change": ONES, "touches": np.full(ITEMS, 2), **sums})


@given(
    nodes=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    seed=st.integers(0, 1_000),
    scale=st.sampled_from([1.0, 0.25, 8.0]),
)
def test_sums_are_those_of_all_users_however_they_are_split(
    nodes: list[int], seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    users = np.asarray(nodes)
    touched = rng.random((len(users), ITEMS)) < 0.6
    changes = rng.normal(size=(len(users), ITEMS, DIM)) * touched[:, :, None]
    losses = rng.random(len(users))
    answers = [
        (n, answer_of(changes[users == n] / scale, touched[users == n], losses[users == n]))
        for n in range(5)
    ]
    summed = PlainSum(RunSettings()).combine(answers, EXPECTED, scale)
    np.testing.assert_allclose(summed.sums["change"], changes.sum(0), atol=1e-5)
    np.testing.assert_array_equal(summed.sums["touches"], touched.sum(0))
    assert summed.sums["change"].dtype == np.float64
    assert summed.sums["touches"].dtype == np.int64
    assert summed.users == len(users)
    assert summed.loss_sum == pytest.approx(losses.sum())
    of_nodes = [np.abs(changes[users == n].sum(0)).max(initial=0) for n in range(5)]
    assert summed.largest == pytest.approx(max(of_nodes), rel=1e-5)
    assert not summed.dropped


def test_nobody_is_no_users() -> None:
    nobody = TrainAnswer(0, 0.0, {"change": 0 * ONES, "touches": np.zeros(ITEMS, np.int64)})
    for answers in ([], [(2, nobody)]):
        summed = PlainSum(RunSettings()).combine(answers, EXPECTED, 1.0)
        assert (summed.users, summed.largest) == (0, 0.0)
        assert not summed.sums["change"].any()


def test_dropped_nodes_are_told_and_in_none_of_the_sums() -> None:
    bad = good_answer(change=np.full((ITEMS, DIM), np.nan, np.float32))
    far = good_answer(change=ONES * 1e6)
    answers = [(2, good_answer()), (3, bad), (4, good_answer()), (5, far)]
    summed = PlainSum(RunSettings(max_update_norm=50.0)).combine(answers, EXPECTED, 1.0)
    assert summed.dropped.keys() == {3, 5}
    assert "NaN" in str(summed.dropped[3])
    assert "max_update_norm" in str(summed.dropped[5])
    assert (summed.users, summed.loss_sum, summed.largest) == (4, 2.0, 1.0)
    np.testing.assert_array_equal(summed.sums["change"], 2 * ONES)
    np.testing.assert_array_equal(summed.sums["touches"], np.full(ITEMS, 4))


def test_a_good_answer_passes() -> None:
    check(good_answer(), EXPECTED, 1.0, RunSettings())


@pytest.mark.parametrize(
    ("sums", "sentence"),
    [
        ({}, "its sums are none, expected change, touches"),
        ({"change": ONES}, "its sums are change, expected change, touches"),
        ({"change": ONES, "touches": np.full(ITEMS, 2), "more": ONES}, "its sums are change, more"),
    ],
)
def test_missing_and_further_sums_are_refused(sums: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        check(TrainAnswer(2, 1.0, sums), EXPECTED, 1.0, RunSettings())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"change": np.ones((ITEMS + 1, DIM), np.float32)}, "shape"),
        ({"change": np.ones(ITEMS * DIM, np.float32)}, "shape"),
        ({"change": np.full((ITEMS, DIM), np.nan, np.float32)}, "NaN"),
        ({"change": np.full((ITEMS, DIM), -np.inf, np.float32)}, "Inf"),
        ({"change": np.ones((ITEMS, DIM), np.int64)}, "no float32"),
        ({"change": np.ones((ITEMS, DIM), np.float16)}, "no float32"),
        ({"change": np.full((ITEMS, DIM), 3e38, np.float32)}, "no item table can hold"),
        ({"touches": np.full(ITEMS + 1, 1)}, "misshapen"),
        ({"touches": np.ones(ITEMS, np.float32)}, "misshapen"),
        ({"touches": np.full(ITEMS, -1)}, "touched rows"),
        ({"touches": np.full(ITEMS, 3)}, "exceed its users"),
        ({"touches": np.full(ITEMS, 0)}, "rows that no user touched"),
    ],
)
def test_wrong_sums_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        check(good_answer(**changed), EXPECTED, 1.0, RunSettings())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"users": -1}, "claims -1 users"),
        ({"users": 0}, "claims 0 users and a change"),
        ({"loss_sum": float("nan")}, "loss"),
    ],
)
def test_wrong_numbers_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        check(dataclasses.replace(good_answer(), **changed), EXPECTED, 1.0, RunSettings())


def test_the_scale_counts_where_a_change_is_too_large() -> None:
    with pytest.raises(OverflowedError, match="no item table can hold"):
        check(good_answer(), EXPECTED, 1e38 * 4, RunSettings())


def test_float16_is_taken_where_it_was_asked_for() -> None:
    half = good_answer(change=ONES.astype(np.float16))
    settings = RunSettings(wire_dtype="float16")
    summed = PlainSum(settings).combine([(2, half)], EXPECTED, 4.0)
    np.testing.assert_array_equal(summed.sums["change"], 4 * ONES)
    with pytest.raises(SnowdropError, match="no float16"):
        check(good_answer(), EXPECTED, 4.0, settings)


def test_the_bound_on_the_norm_is_for_each_user() -> None:
    norm = float(np.sqrt(ITEMS * DIM))  # of two users
    check(good_answer(), EXPECTED, 1.0, RunSettings(max_update_norm=norm / 2 * 1.01))
    for scale, bound in ((1.0, norm / 2 * 0.99), (2.1, norm)):
        with pytest.raises(SnowdropError, match="for 2 users, above max_update_norm"):
            check(good_answer(), EXPECTED, scale, RunSettings(max_update_norm=bound))


def test_only_bounded_sums_have_a_bound() -> None:
    expected = {**EXPECTED, "change": Expected((ITEMS, DIM))}
    check(good_answer(), expected, 1.0, RunSettings(max_update_norm=0.1))


def test_what_a_user_can_add_by_the_methods_own_rule_bounds_a_sum() -> None:
    norm = float(np.linalg.norm(ONES))
    expected = {**EXPECTED, "change": Expected((ITEMS, DIM), norm=norm / 2)}
    check(good_answer(), expected, 1.0, RunSettings())
    with pytest.raises(SnowdropError, match="for 2 users, each of whom can add"):
        check(good_answer(), expected, 1.01, RunSettings())


def test_metrics_of_several_forms_are_as_many() -> None:
    forms, names = [2, 1], ["recall"]
    good = EvaluateAnswer([2, 1], names, [2.0, 1.0, 0.5])
    assert check_metrics(good, forms, names, RunSettings()).tolist() == [[2.0], [1.0], [0.5]]
    for users, sums in (
        ([2, 1], [2.0]),
        ([2], [2.0, 1.0, 0.5]),
        ([2, 1], [2.0, 1.0, 0.5, 0.0]),
        ([2, 1], [2.0, 3.0, 0.5]),
        ([2, 1], [2.0, 1.0, 1.5]),
    ):
        with pytest.raises(SnowdropError, match="metrics"):
            check_metrics(EvaluateAnswer(users, names, sums), forms, names, RunSettings())


def test_a_node_may_claim_so_many_users_wherever_it_counts_them() -> None:
    capped = RunSettings(max_node_users=2)
    check(good_answer(), EXPECTED, 1.0, capped)
    measured = check_metrics(
        EvaluateAnswer([2, 1], ["recall"], [2.0, 0.5]), [1, 1], ["recall"], capped
    )
    assert measured.tolist() == [[2.0], [0.5]]
    assert check_counts(CountAnswer(np.array([0, 2])), 2, capped).tolist() == [0, 2]
    with pytest.raises(SnowdropError, match="claims 3 users, above max_node_users = 2"):
        check(dataclasses.replace(good_answer(), users=3), EXPECTED, 1.0, capped)
    with pytest.raises(SnowdropError, match="claims 3 users"):
        check_metrics(EvaluateAnswer([1, 3], ["recall"], [1.0, 2.0]), [1, 1], ["recall"], capped)
    with pytest.raises(SnowdropError, match="claims 3 users"):
        check_counts(CountAnswer(np.array([0, 3])), 2, capped)


@pytest.mark.parametrize(
    "counts", [np.array([1]), np.array([[1, 2]]), np.array([1, -1]), np.array([1.0, 2.0])]
)
def test_counts_that_cannot_be_are_refused(counts: np.ndarray) -> None:
    with pytest.raises(SnowdropError, match=r"^its counts of users are misshapen or negative$"):
        check_counts(CountAnswer(counts), 2, RunSettings())


def test_counts_of_no_item_are_fine() -> None:
    assert len(check_counts(CountAnswer(np.zeros(0, np.int64)), 0, RunSettings())) == 0


def test_answers_of_nodes_and_of_the_server_itself_add_up() -> None:
    refused = SnowdropError("its loss is NaN or Inf")
    sums = {"change": np.full((ITEMS, DIM), 2.0), "touches": np.arange(ITEMS)}
    others = {"change": np.full((ITEMS, DIM), 3.0), "touches": np.ones(ITEMS, np.int64)}
    both = Summed(3, 1.5, sums, 2.0, {7: refused}) + Summed(4, 0.25, others, 3.0, {8: refused})
    assert (both.users, both.loss_sum, both.largest) == (7, 1.75, 3.0)
    np.testing.assert_array_equal(both.sums["change"], np.full((ITEMS, DIM), 5.0))
    np.testing.assert_array_equal(both.sums["touches"], np.arange(ITEMS) + 1)
    assert both.dropped == {7: refused, 8: refused}


NODES_NOISE = {"method": "ridge", "average": "users", "clip_norm": 1.0, "gaussian_scale": 2.0}
TABLE = {"change": Expected((200, 50), bounded=True)}


def table_answer(users: int, loss: float | None) -> TrainAnswer:
    return TrainAnswer(users, loss, {"change": np.full((200, 50), users, np.float32)})


def test_with_noise_of_the_nodes_no_loss_is_taken() -> None:
    settings = RunSettings.parse(NODES_NOISE)
    summed = PlainSum(settings).combine([(1, table_answer(3, None))], TABLE, 1.0)
    assert (summed.users, summed.loss_sum) == (3, 0.0)
    with pytest.raises(SnowdropError, match="it tells a loss, which carries no noise"):
        check(table_answer(3, 1.0), TABLE, 1.0, settings)
    with pytest.raises(SnowdropError, match="its loss is missing"):
        check(table_answer(3, None), TABLE, 1.0, RunSettings.parse({"average": "users"}))


def servers(users: int, **changed: Any) -> NoisySum:
    settings = RunSettings.parse({**NODES_NOISE, "noise_by": "server", **changed})
    return NoisySum(PlainSum(settings), settings, users)


def test_a_trusted_servers_noise_is_added_once_to_the_sum() -> None:
    answers = [(node, table_answer(4, 0.5)) for node in range(3)]
    summed = servers(12).combine(answers, TABLE, 1.0)
    noise = (summed.sums["change"] - 12.0).flatten()
    assert kstest(noise, norm(scale=2.0).cdf).pvalue > 1e-7
    assert summed.users == 12
    assert summed.loss_sum == 1.5  # the server is trusted with it


@pytest.mark.parametrize("drawn", [0, 1, 9])
def test_what_is_divided_by_tells_nobody_who_was_drawn(drawn: int) -> None:
    answers = [(1, table_answer(drawn, 1.0))]
    summed = servers(20, fraction=0.25).combine(answers, TABLE, 1.0)
    assert summed.users == 5
    assert abs(summed.sums["change"].mean() - drawn) < 0.2
    assert summed.sums["change"].std() > 1.5  # where nobody was drawn, too


def test_without_an_answer_there_is_nothing_to_hide() -> None:
    assert servers(20).combine([], TABLE, 1.0).users == 0
    wrong = TrainAnswer(2, 1.0, {"change": np.ones((3, 3), np.float32)})
    summed = servers(20).combine([(1, wrong)], TABLE, 1.0)
    assert (summed.users, list(summed.dropped)) == (0, [1])
    assert not summed.sums["change"].any()


WHOLE = {"sketch": Expected((100, 60), norm=1.0, whole=True)}
ONE_ROUND = {"method": "one-round", "average": "users", "clip_norm": 1.0, "gaussian_scale": 2.0}


def whole_answer(users: int, steps: int, **changed: Any) -> TrainAnswer:
    sketch = np.zeros((100, 60), np.int64)
    sketch[0, 0] = steps
    return TrainAnswer(users, 0.0, {"sketch": sketch, **changed})


def test_whole_numbers_add_up_exactly_and_get_discrete_noise() -> None:
    settings = RunSettings.parse({**ONE_ROUND, "noise_by": "server"})
    answers = [(1, whole_answer(2, 2**31 - 1)), (2, whole_answer(1, -(2**30) + 2))]
    summed = PlainSum(settings).combine(answers, WHOLE, 8.0)  # no scale is theirs
    assert summed.sums["sketch"][0, 0] == (2**30 + 1) * 2.0**-30
    noise = NoisySum(PlainSum(settings), settings, 3).combine(answers, WHOLE, 8.0).sums["sketch"]
    assert (noise * 2**30 % 1 == 0).all()
    assert kstest(noise[1:].ravel(), norm(scale=2.0).cdf).pvalue > 1e-9


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (whole_answer(2, 2**32), "its sketch has norm 4 for 2 users, each of whom can add 1"),
        (
            whole_answer(2, 0, sketch=np.zeros((100, 60), np.float32)),
            "its sketch holds NaN, Inf or no int64",
        ),
    ],
)
def test_whole_numbers_that_cannot_be_are_refused(answer: TrainAnswer, sentence: str) -> None:
    settings = RunSettings.parse({**ONE_ROUND, "noise_by": "server"})
    with pytest.raises(SnowdropError, match=sentence):
        check(answer, WHOLE, 1.0, settings)
