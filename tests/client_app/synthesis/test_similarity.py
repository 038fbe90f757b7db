"""Similarities of users, against loops over pairs of sets."""

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack

from client_app.synthesis.similarity import jaccard_to, nearest, profile


def drawn_users(users: int, items: int, share: float, seed: int) -> csr_array:
    return csr_array(np.random.default_rng(seed).random((users, items)) < share)


def sets_of(likes: csr_array) -> list[set[int]]:
    return [set(row.nonzero()[0].tolist()) for row in likes.toarray()]


def similarity(a: set[int], b: set[int], measure: str) -> float:
    shared = len(a & b)
    if not shared:
        return 0.0
    return shared / (len(a | b) if measure == "jaccard" else (len(a) * len(b)) ** 0.5)


LEFT, RIGHT = drawn_users(23, 12, 0.1, 1), drawn_users(31, 12, 0.3, 2)


@pytest.mark.parametrize("measure", ["jaccard", "cosine"])
@pytest.mark.parametrize("pairs", [1, 100, 10_000])
def test_the_nearest_user_is_found(measure: str, pairs: int) -> None:
    assert set() in sets_of(LEFT)  # users without an item are among them
    expected = [
        max(similarity(a, b, measure) for b in sets_of(RIGHT)) for a in sets_of(LEFT)
    ]  # fmt: skip
    assert nearest(LEFT, RIGHT, measure, pairs=pairs) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pairs", [1, 100, 10_000])
def test_nobody_is_the_nearest_to_oneself(pairs: int) -> None:
    own = sets_of(RIGHT)
    expected = [
        max(similarity(a, b, "jaccard") for j, b in enumerate(own) if j != i)
        for i, a in enumerate(own)
    ]
    assert profile(RIGHT, RIGHT, others=True, pairs=pairs).nearest == pytest.approx(
        expected, abs=1e-12
    )


def test_a_copy_is_at_one() -> None:
    likes = csr_array(np.eye(3, dtype=bool)[[0, 1, 1]])
    assert profile(likes, likes, others=True).nearest.tolist() == [0.0, 1.0, 1.0]
    assert profile(likes, likes).nearest.tolist() == nearest(likes, likes).tolist() == [1.0] * 3


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("pairs", [1, 100, 10_000])
def test_pairs_are_counted_by_tenths(others: bool, pairs: int) -> None:
    right = vstack([LEFT, RIGHT], format="csr") if others else RIGHT
    expected = np.zeros(10, dtype=int)
    for i, a in enumerate(sets_of(LEFT)):
        for j, b in enumerate(sets_of(right)):
            if not (others and i == j):
                shared, union = len(a & b), len(a | b)
                expected[min(10 * shared // max(1, union), 9)] += 1
    assert profile(LEFT, right, others, pairs).table.tolist() == expected.tolist()


def test_a_tenth_belongs_to_the_bin_that_it_opens() -> None:
    """Three of ten items is 0.3, whatever floats make of it."""
    one, ten = csr_array(np.arange(10)[None] < 3), csr_array(np.ones((1, 10), dtype=bool))
    assert profile(one, ten).table.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert profile(ten, ten).table.tolist() == [0] * 9 + [1]


def test_sides_without_users_have_no_pairs() -> None:
    none = csr_array((0, 12), dtype=bool)
    assert nearest(LEFT, none).tolist() == [0.0] * 23
    assert profile(none, RIGHT).table.sum() == 0


def test_one_user_is_compared_with_each_other_one() -> None:
    for row, own in enumerate(sets_of(LEFT)):
        expected = [similarity(own, other, "jaccard") for other in sets_of(RIGHT)]
        assert jaccard_to(LEFT[[row]], RIGHT) == pytest.approx(expected)
