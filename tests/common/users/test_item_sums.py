"""The one sum over users: against plain loops, and its bound on each user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.discrete import STEP
from common.users import item_sums
from common.users.item_sums import gram_sum, packed, sketch_sum, unpacked, whole_sketch_sum
from common.users.ragged import Ragged

ITEMS, COLUMNS = 7, 3

HISTORIES = st.lists(st.sets(st.integers(0, ITEMS - 1)), max_size=9)


def ragged(lists: list[set[int]]) -> Ragged:
    items = [item for one in lists for item in sorted(one)]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    return Ragged(offsets, np.array(items, np.int64))


def rows_of(lists: list[set[int]]) -> np.ndarray:
    x = np.zeros((len(lists), ITEMS))
    for user, one in enumerate(lists):
        x[user, sorted(one)] = 1
    return x


def basis_of(seed: int) -> np.ndarray:
    made = np.linalg.qr(np.random.default_rng(seed).normal(size=(ITEMS, COLUMNS)))[0]
    return made.astype(np.float32)


@given(lists=HISTORIES)
def test_the_gram_matrix_in_a_plain_loop(lists: list[set[int]]) -> None:
    expected = np.zeros((ITEMS, ITEMS))
    for x in rows_of(lists):
        if x.any():
            expected += np.outer(x, x) / x.sum()
    np.testing.assert_allclose(unpacked(gram_sum(ragged(lists), ITEMS), ITEMS), expected, atol=1e-9)


@given(lists=HISTORIES, seed=st.integers(0, 50))
def test_the_sketch_in_a_plain_loop(lists: list[set[int]], seed: int) -> None:
    basis = basis_of(seed)
    expected = np.zeros((ITEMS, COLUMNS))
    for x in rows_of(lists):
        seen = x @ basis
        if np.linalg.norm(x) * np.linalg.norm(seen) > 1e-6:
            expected += np.outer(x, seen) / (np.linalg.norm(x) * np.linalg.norm(seen))
    np.testing.assert_allclose(sketch_sum(ragged(lists), basis), expected, atol=1e-9)


@given(one=st.sets(st.integers(0, ITEMS - 1)), seed=st.integers(0, 50))
def test_no_user_moves_a_sum_by_more_than_a_norm_of_one(one: set[int], seed: int) -> None:
    """And each user with a history by exactly that, so that all count alike."""
    whole, sketch = gram_sum(ragged([one]), ITEMS), sketch_sum(ragged([one]), basis_of(seed))
    assert np.linalg.norm(whole) == pytest.approx(float(bool(one)))
    assert np.linalg.norm(sketch) == pytest.approx(float(bool(one)))


def test_a_history_at_right_angles_to_the_basis_adds_nothing() -> None:
    basis = np.zeros((ITEMS, 1), np.float32)
    basis[0] = 1
    assert not sketch_sum(ragged([{1, 2}]), basis).any()
    assert sketch_sum(ragged([{0, 1}]), basis).any()


def test_sums_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lists = [set(rng.choice(ITEMS, rng.integers(0, ITEMS), replace=False)) for _ in range(30)]
    whole = gram_sum(ragged(lists), ITEMS), sketch_sum(ragged(lists), basis_of(0))
    for numbers in (1, 10, 100):
        monkeypatch.setattr(item_sums, "CHUNK_NUMBERS", numbers)
        np.testing.assert_allclose(gram_sum(ragged(lists), ITEMS), whole[0], atol=1e-12)
        np.testing.assert_allclose(sketch_sum(ragged(lists), basis_of(0)), whole[1], atol=1e-12)


def test_users_in_two_parts_add_up() -> None:
    lists: list[set[int]] = [{0, 1}, {2}, {1, 2, 3}, set()]
    for total in (lambda some: gram_sum(ragged(some), ITEMS),
                  lambda some: sketch_sum(ragged(some), basis_of(1))):  # fmt: skip
        np.testing.assert_allclose(total(lists[:2]) + total(lists[2:]), total(lists), atol=1e-12)


@given(items=st.integers(1, 6), seed=st.integers(0, 50))
def test_packing_keeps_the_matrix_and_its_norm(items: int, seed: int) -> None:
    square = np.random.default_rng(seed).normal(size=(items, items))
    symmetric = square + square.T
    numbers = packed(symmetric.copy())
    assert numbers.shape == (items * (items + 1) // 2,)
    assert np.linalg.norm(numbers) == pytest.approx(np.linalg.norm(symmetric))
    np.testing.assert_allclose(unpacked(numbers, items), symmetric, atol=1e-12)


def wild_basis(seed: int) -> np.ndarray:
    """What a server that does not keep to the rules may send."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(ITEMS, COLUMNS)) * 10.0 ** rng.integers(-9, 9, (ITEMS, COLUMNS))
    return np.where(rng.random(made.shape) < 0.3, np.round(made), made).astype(np.float32)


@given(lists=HISTORIES, seed=st.integers(0, 200), wild=st.booleans())
def test_whole_parts_are_bounded_and_add_up_exactly(
    lists: list[set[int]], seed: int, wild: bool
) -> None:
    """Each in Python's own whole numbers; next to nothing is lost to rounding."""
    basis = wild_basis(seed) if wild else basis_of(seed)
    parts = [whole_sketch_sum(ragged([one]), basis) for one in lists]
    for part in parts:
        assert sum(int(number) ** 2 for number in part.ravel()) <= int(1 / STEP) ** 2
    total = whole_sketch_sum(ragged(lists), basis)
    assert total.dtype == np.int64
    np.testing.assert_array_equal(total, sum(parts, np.zeros_like(basis, np.int64)))
    apart = np.abs(total * STEP - sketch_sum(ragged(lists), basis))
    assert apart.max() <= 1.01 * STEP * max(len(lists), 1)


def test_whole_parts_are_rounded_towards_zero() -> None:
    basis = np.array([[3.0, -4.0], [0.0, 0.0]], np.float32)
    part = whole_sketch_sum(ragged([{0}]), np.vstack([basis, np.zeros((5, 2), np.float32)]))
    np.testing.assert_array_equal(part[0], [int(0.6 * 2**30), -int(0.8 * 2**30)])


def test_whole_sums_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [set(np.random.default_rng(user).choice(ITEMS, 3).tolist()) for user in range(50)]
    whole = whole_sketch_sum(ragged(lists), basis_of(1))
    monkeypatch.setattr(item_sums, "CHUNK_NUMBERS", 10)
    np.testing.assert_array_equal(whole_sketch_sum(ragged(lists), basis_of(1)), whole)
