"""A large matrix in few numbers for each item."""

import numpy as np
import pytest

from server_app import compact as module
from server_app.compact import Compact, compact, compact_by_landmarks
from server_app.kernels import ridge_weights


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


def clustered(rows: int, seed: int) -> np.ndarray:
    """Unit rows around a few centres."""
    centres = np.random.default_rng(0).normal(size=(5, 8))
    rng = np.random.default_rng(seed)
    made = centres[rng.integers(0, 5, rows)] + 0.7 * rng.normal(size=(rows, 8))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


WARM_UNITS, COLD_UNITS = clustered(60, 1), clustered(9, 2)
WEIGHTS = ridge_weights(WARM_UNITS, COLD_UNITS, 4.0, 10.0)


def by_landmarks(rank: int, neighbours: int, landmarks: int) -> Compact:
    rows = np.arange(landmarks)
    return compact_by_landmarks(WARM_UNITS, COLD_UNITS, 4.0, 10.0, rank, neighbours, rows)


def test_with_every_warm_item_a_landmark_nothing_is_lost() -> None:
    np.testing.assert_allclose(whole(by_landmarks(60, 0, 60)), WEIGHTS, atol=1e-4)


def test_with_some_landmarks_the_nearest_items_make_up_for_the_rest() -> None:
    """Errors as shares of the weights: the second part mends most of what the first one loses."""
    size = np.linalg.norm(WEIGHTS)
    first = np.linalg.norm(whole(by_landmarks(8, 0, 30)) - WEIGHTS) / size
    both = np.linalg.norm(whole(by_landmarks(8, 60, 30)) - WEIGHTS) / size
    assert both < 0.1 < 2 * both < first


def test_landmarks_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = by_landmarks(8, 5, 30)
    assert (at_once.columns.shape, at_once.columns.dtype) == ((9, 5), np.int32)
    assert (np.diff(at_once.columns, axis=1) > 0).all()
    for rows, columns in ((2, 2**16), (1024, 7), (3, 4)):
        monkeypatch.setattr(module, "_ROWS", rows)
        monkeypatch.setattr(module, "_COLUMNS", columns)
        np.testing.assert_allclose(whole(by_landmarks(8, 5, 30)), whole(at_once), atol=1e-6)
