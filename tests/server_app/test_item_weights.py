"""EASE from main directions, against its closed form; directions, against dense algebra."""

import numpy as np
import pytest

from server_app.item_weights import (
    directions_of_gram,
    directions_of_sketch,
    edge_of_noise,
    reliability,
    text_basis,
)

USERS, ITEMS = 40, 12


def histories(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((USERS, ITEMS)) < 0.3).astype(np.float64)


def mean_gram(x: np.ndarray) -> np.ndarray:
    counts = np.maximum(x.sum(1, keepdims=True), 1)
    return ((x / counts).T @ x / len(x)).astype(np.float32)


def by_directions(axes: np.ndarray, sizes: np.ndarray, ridge: float, x: np.ndarray) -> np.ndarray:
    """x B, as the module's docstring has it."""
    gain = sizes / (sizes + ridge)
    divisor = 1 - np.square(axes) @ gain
    return x - (x - (x @ axes * gain) @ axes.T) / divisor


@pytest.mark.parametrize("ridge", [0.003, 0.1, 3.0])
def test_ease_equals_its_closed_form(ridge: float) -> None:
    """Equation 8 of arXiv 1905.03375, with an inverse, and with each item left out by itself."""
    x, gram = histories(), mean_gram(histories()).astype(np.float64)
    inverse = np.linalg.inv(gram + ridge * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    made = by_directions(*directions_of_gram(gram.astype(np.float32), ITEMS), ridge, x)
    np.testing.assert_allclose(made, x @ weights, atol=2e-3)
    for item in range(ITEMS):
        others = np.delete(np.arange(ITEMS), item)
        left = gram[np.ix_(others, others)] + ridge * np.eye(ITEMS - 1)
        np.testing.assert_allclose(
            weights[others, item], np.linalg.solve(left, gram[others, item]), atol=1e-6
        )


def test_directions_of_a_gram_matrix_are_its_largest() -> None:
    gram = mean_gram(histories())
    values, vectors = np.linalg.eigh(gram)
    axes, sizes = directions_of_gram(gram, 4)
    np.testing.assert_allclose(sizes, values[::-1][:4], rtol=1e-4)
    assert (axes.dtype, sizes.dtype) == (np.float32, np.float32)
    best = vectors[:, ::-1][:, :4]
    np.testing.assert_allclose(axes @ axes.T, best @ best.T, atol=1e-3)


def test_a_sketch_on_a_whole_basis_is_the_gram_matrix() -> None:
    gram = mean_gram(histories())
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=gram.shape))[0].astype(np.float32)
    axes, sizes = directions_of_sketch(gram @ basis, basis, ITEMS)
    np.testing.assert_allclose((axes * sizes) @ axes.T, gram, atol=1e-4)


def test_a_sketch_is_the_nystrom_estimate() -> None:
    gram = mean_gram(histories()).astype(np.float64)
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(ITEMS, 5)))[0]
    sketch = gram @ basis
    expected = sketch @ np.linalg.inv(basis.T @ sketch) @ sketch.T
    axes, sizes = directions_of_sketch(sketch.astype(np.float32), basis.astype(np.float32), 99)
    assert axes.shape == (ITEMS, 5)
    np.testing.assert_allclose((axes * sizes) @ axes.T, expected, atol=1e-3)
    fewer, sizes_of_fewer = directions_of_sketch(
        sketch.astype(np.float32), basis.astype(np.float32), 2
    )
    np.testing.assert_allclose(np.abs(fewer), np.abs(axes[:, :2]), atol=1e-5)
    np.testing.assert_allclose(sizes_of_fewer, sizes[:2], rtol=1e-5)


def test_where_nothing_was_learnt_there_is_one_empty_direction() -> None:
    nothing = np.zeros((ITEMS, ITEMS), np.float32)
    basis = np.eye(ITEMS, 3, dtype=np.float32)
    for axes, sizes in (
        directions_of_gram(nothing, 4),
        directions_of_sketch(np.zeros((ITEMS, 3), np.float32), basis, 4),
    ):
        assert (axes.shape, sizes.tolist()) == ((ITEMS, 1), [0.0])
        assert not by_directions(axes, sizes, 1.0, histories()).any()


def test_a_basis_of_texts_is_orthonormal_and_begins_with_a_constant() -> None:
    units = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
    basis = text_basis(units, 5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(np.abs(basis[:, 0]), ITEMS**-0.5, rtol=1e-5)
    inside = np.concatenate([np.ones((ITEMS, 1)), units], 1)
    left = basis - inside @ np.linalg.lstsq(inside, basis, rcond=None)[0]
    np.testing.assert_allclose(left, 0, atol=1e-4)


def test_columns_that_texts_do_not_have_are_zeros() -> None:
    basis = text_basis(np.ones((ITEMS, 3), np.float32), 4)
    assert basis.shape == (ITEMS, 4)
    assert np.linalg.norm(basis[:, 0]) == pytest.approx(1)
    np.testing.assert_allclose(basis[:, 1:], 0, atol=1e-5)


def test_noise_alone_reaches_its_edge_and_is_left_out_beyond() -> None:
    items, columns, noise = 400, 80, 0.3
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(items, columns)))[0].astype(np.float32)
    drawn = noise * rng.normal(size=(items, columns))
    core = basis.T @ drawn
    largest = np.linalg.eigvalsh((core + core.T) / 2)[-1]
    assert largest == pytest.approx(edge_of_noise(noise, columns), rel=0.1)
    axes, sizes = directions_of_sketch(drawn / 2, basis, items, noise)  # half of what is announced
    assert (axes.shape, sizes.tolist()) == ((items, 1), [0.0])
    assert reliability(drawn / 2, basis, noise) == 0.0
    assert reliability(drawn, basis, 0.0) == 1.0


@pytest.mark.parametrize("size", [3.0, 10.0, 40.0])
def test_reliability_is_the_share_of_directions_that_is_no_noise(size: float) -> None:
    """Against the square of the cosine between each direction's column and the truth."""
    items, columns, noise = 500, 20, 0.2
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(items, columns)))[0].astype(np.float32)
    sketch = size * np.outer(basis[:, 0], np.eye(columns)[0])
    noisy = sketch + noise * rng.normal(size=sketch.shape)
    core = basis.T @ noisy
    values, vectors = np.linalg.eigh((core + core.T) / 2)
    kept = values > 0.75 * noise * np.sqrt(2 * columns)
    columns_of = noisy @ vectors[:, kept]
    cosines = basis[:, 0] @ columns_of / np.linalg.norm(columns_of, axis=0)
    of_truth = np.average(np.square(cosines), weights=values[kept])
    assert reliability(noisy, basis, noise) == pytest.approx(of_truth, abs=0.06)
