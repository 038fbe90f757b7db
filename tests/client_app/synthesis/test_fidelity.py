"""Statistics of synthetic users against real ones."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import spearmanr

from client_app.synthesis.fidelity import (
    compare,
    distinct,
    doubling_bins,
    items_per_user,
    shares_of_bins,
    users_per_item,
)
from tests.client_app.synthesis.test_similarity import drawn_users


def matrix(rows: list[list[int]]) -> csr_array:
    return csr_array(np.array(rows, dtype=bool))


def test_the_same_users_differ_in_nothing() -> None:
    likes = drawn_users(40, 10, 0.3, 0)
    told = compare(likes, likes)
    assert told.users_distance == told.items_distance == told.popularity_distance == 0
    assert told.popularity_correlation == pytest.approx(1)
    assert told.items_unused == 0


def test_distances_are_those_of_their_definitions() -> None:
    real, made = drawn_users(60, 15, 0.3, 1), drawn_users(45, 15, 0.4, 2)
    told = compare(made, real)

    def ks(a: np.ndarray, b: np.ndarray) -> float:
        at = np.concatenate([a, b])
        return max(abs((a <= x).mean() - (b <= x).mean()) for x in at)

    real_users, made_users = real.toarray().sum(1), made.toarray().sum(1)
    real_items, made_items = real.toarray().sum(0), made.toarray().sum(0)
    assert told.users_distance == pytest.approx(ks(real_users, made_users))
    assert told.items_distance == pytest.approx(ks(real_items / 60, made_items / 45))
    shares = real_items / real_items.sum(), made_items / made_items.sum()
    assert told.popularity_distance == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert told.popularity_correlation == pytest.approx(spearmanr(real_items, made_items)[0])
    assert told.repeated == 45 - len({tuple(row) for row in made.toarray().tolist()})


def test_items_that_no_synthetic_user_has_are_counted() -> None:
    told = compare(matrix([[1, 0, 0, 0]]), matrix([[1, 1, 0, 0], [0, 1, 1, 0]]))
    assert told.items_unused == 2  # the fourth has no real user either


def test_popularity_that_is_the_same_everywhere_has_no_rank() -> None:
    assert math.isnan(compare(matrix([[1, 1]]), matrix([[1, 0], [1, 1]])).popularity_correlation)


def test_counts_are_of_rows_and_columns() -> None:
    likes = drawn_users(9, 7, 0.4, 3)
    assert items_per_user(likes).tolist() == likes.toarray().sum(1).tolist()
    assert users_per_item(likes).tolist() == likes.toarray().sum(0).tolist()


def test_different_users_are_counted_once() -> None:
    assert distinct(matrix([[0, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]])) == 3
    likes = drawn_users(300, 6, 0.5, 4)
    assert distinct(likes) == len({tuple(row) for row in likes.toarray().tolist()})


def test_bins_double_and_hold_every_count() -> None:
    bins = doubling_bins(9)
    assert bins == [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15)]
    assert shares_of_bins(np.array([0, 1, 2, 3, 8, 9, 7, 4]), bins) == [
        1 / 8, 1 / 8, 2 / 8, 2 / 8, 2 / 8
    ]  # fmt: skip
    assert doubling_bins(0) == [(0, 0)]
