"""Scores of memberships, against scikit-learn and messages whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cli.attack.guessing import (
    Pairs,
    area,
    carried_over,
    judged,
    pairs_of,
    scores_of_table,
    scores_of_updates,
    shares_of_rankings,
)
from cli.attack.seen import Seen
from tests.cli.attack.constructed import KNOWN, histories, rounds_of


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_areas_are_those_of_scikit_learn(told: list[tuple[int, bool]]) -> None:
    scores, members = (np.array(column) for column in zip(*told, strict=True))
    if members.all() or not members.any():
        return
    assert area(scores, members) == pytest.approx(roc_auc_score(members, scores))


def test_pairs_are_of_equal_popularity_and_hide_what_is_known() -> None:
    own = histories(60, 8)
    pairs = pairs_of(own, KNOWN.warm, seed=0)
    popularity = np.bincount(np.concatenate(own), minlength=KNOWN.warm)
    assert pairs.members.sum() == len(pairs.members) / 2 == 60 * 4
    gap = popularity[pairs.items[pairs.members]].mean()
    gap -= popularity[pairs.items[~pairs.members]].mean()
    assert abs(gap) < 0.15
    for user, item, member in zip(pairs.users, pairs.items, pairs.members, strict=True):
        assert (item in own[user]) == member
        assert item not in pairs.known[user]
        assert set(pairs.known[user]) <= set(own[user])


def test_updates_of_a_crowd_tell_members() -> None:
    own = histories(10, 8)
    seen = rounds_of(own, 10, dims=32)
    pairs = pairs_of(own, KNOWN.warm, seed=0)
    scores = np.concatenate([
        scores_of_updates(seen, KNOWN.warm, pairs.known[user])[pairs.items[pairs.users == user]]
        for user in range(10)
    ])  # fmt: skip
    found = judged(scores, pairs, seed=0)
    assert found.auc > 0.95
    assert found.low <= found.auc <= found.high
    noisy = rounds_of(own, 10, dims=32, noise=50.0)
    hidden = np.concatenate([
        scores_of_updates(noisy, KNOWN.warm, pairs.known[user])[pairs.items[pairs.users == user]]
        for user in range(10)
    ])  # fmt: skip
    told = judged(hidden, pairs, seed=0)
    assert told.low < 0.5 < told.high


def test_sums_of_pairs_tell_members() -> None:
    numbers = np.zeros(6)
    numbers[[0, 1, 3]] = 1  # the upper triangle of items 0 and 1, in a catalogue of three
    scores = scores_of_updates([Seen("n", 1, 1, {"gram": numbers})], 3, np.array([0]))
    assert scores.argsort().tolist()[0] == 2 and scores[1] > 0


def test_metrics_of_known_rankings_are_solved_for_who_has_what() -> None:
    rng = np.random.default_rng(0)
    has = np.zeros(120)
    has[[3, 50, 51, 119]] = [0.5, 1.0, 1 / 3, 0.25]
    places = np.stack([rng.permutation(120) for _ in range(60)])
    cuts = (20, 50, 100)
    recalls = np.stack([(places < cut) @ has for cut in cuts], axis=1)
    np.testing.assert_allclose(shares_of_rankings(places, recalls, cuts), has, atol=1e-6)


def test_rows_are_carried_over_by_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 4))
    cold, warm = rng.normal(size=(400, 5)), rng.normal(size=(30, 5))
    made = carried_over(cold @ weights, cold, warm, ridge=1e-6)
    true = warm @ weights
    np.testing.assert_allclose(made - made.mean(0), true - true.mean(0), atol=1e-6)


def test_a_table_is_scored_by_cosines() -> None:
    made = np.array([[1.0, 0], [2, 0], [0, 1], [-1, 0]])
    pairs = Pairs(np.array([0, 0, 0]), np.array([1, 2, 3]), np.array([True, False, False]), [])
    scores = scores_of_table(made, [np.array([0])], pairs)
    np.testing.assert_allclose(scores, [1, 0, -1])
