"""A large matrix in few numbers for each item."""

import numpy as np
import pytest

from server_app import compact as module
from server_app.compact import Compact, compact


def whole(made: Compact) -> np.ndarray:
    """C as nodes have it."""
    dense = (made.items @ made.warm.T).astype(np.float64)
    for row, (columns, values) in enumerate(zip(made.columns, made.values, strict=True)):
        for column, value in zip(columns, values, strict=True):
            dense[row, column] += value
    return dense


def matrix(cold: int = 9, warm: int = 14) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(cold, warm)).astype(np.float32)


@pytest.mark.parametrize(("rank", "neighbours"), [(99, 0), (99, 3), (0, 99), (2, 99)])
def test_with_enough_numbers_nothing_is_lost(rank: int, neighbours: int) -> None:
    weights = matrix()
    np.testing.assert_allclose(whole(compact(weights, rank, neighbours)), weights, atol=1e-5)


def test_the_first_part_is_the_best_of_its_rank() -> None:
    weights = matrix()
    u, sizes, v = np.linalg.svd(weights)
    best = (u[:, :3] * sizes[:3]) @ v[:3]
    made = compact(weights, 3, 0)
    assert (made.items.shape, made.warm.shape, made.values.shape) == ((9, 3), (14, 3), (9, 0))
    np.testing.assert_allclose(whole(made), best, atol=1e-4)


def test_the_second_part_holds_the_largest_of_what_is_left() -> None:
    weights = matrix()
    made = compact(weights, 3, 4)
    left = weights - made.items @ made.warm.T
    for row in range(len(weights)):
        largest = sorted(np.argsort(-np.abs(left[row]))[:4])
        assert made.columns[row].tolist() == largest
        np.testing.assert_allclose(made.values[row], left[row, largest], atol=1e-5)


def test_rows_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = matrix()
    made = compact(weights, 3, 4)
    np.testing.assert_array_equal(whole(made.rows(slice(2, 5))), whole(made)[2:5])
    monkeypatch.setattr(module, "_ROWS", 2)
    np.testing.assert_array_equal(whole(compact(weights, 3, 4)), whole(made))


def test_no_cold_item_at_all() -> None:
    made = compact(np.zeros((0, 5), np.float32), 3, 2)
    assert (made.items.shape[0], made.warm.shape, made.columns.shape) == (0, (5, 0), (0, 2))
