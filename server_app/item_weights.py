"""What the server makes of a sum over users of pairs of items: its main directions.

The mean over users is a Gram matrix G ≈ A diag(s) A'. With these, EASE needs no inverse:
λ (G + λ I)⁻¹ = I − A diag(s / (s + λ)) A', so a history x scores x B = x − (x − x A f A') / share,
with f = s / (s + λ) and share = diag(I − A f A'). Every λ takes the same A and s.
"""

import numpy as np
from scipy.linalg import eigh, qr, svd
from sklearn.utils.extmath import randomized_svd

_LEAST = 1e-5
"""Directions that are smaller than this share of the largest one are noise of the arithmetic."""


def directions_of_gram(gram: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvectors A and eigenvalues s of a Gram matrix.

    Parameters
    ----------
    gram : ndarray, float32 (m, m)
        Symmetric, without negative eigenvalues.
    count : int
        Directions r, as far as there are so many.

    Returns
    -------
    axes : ndarray, float32 (m, r)
        Orthonormal.
    sizes : ndarray, float32 (r,)
        Falling.
    """
    # A fixed seed: the same sum gives the same numbers in every run.
    axes, sizes, _ = randomized_svd(gram, min(count, len(gram)), n_iter=4, random_state=0)
    return _kept(axes, sizes, count)


def directions_of_sketch(
    sketch: np.ndarray, basis: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same of the Nyström estimate G ≈ Y (Q' Y)⁻¹ Y' from a sketch Y = G Q.

    Halko, Martinsson and Tropp, "Finding structure with randomness", arXiv 0909.4061, section 5.5,
    for the matrix; the users' parts are scaled one by one here, so that Y is G Q of other weights
    of users, and Q' Y is made symmetric.

    Parameters
    ----------
    sketch : ndarray, float32 (m, k)
        Y.
    basis : ndarray, float32 (m, k)
        Q, orthonormal.
    count : int
    """
    core = basis.T.astype(np.float64) @ sketch
    values, vectors = eigh((core + core.T) / 2)
    kept = values > _LEAST * max(values[-1], 1e-30)
    if not kept.any():
        return _kept(np.zeros((len(sketch), 1)), np.zeros(1), count)
    factor = sketch @ (vectors[:, kept] / np.sqrt(values[kept]))
    axes, roots, _ = svd(factor, full_matrices=False)
    return _kept(axes, np.square(roots), count)


def text_basis(units: np.ndarray, columns: int) -> np.ndarray:
    """Orthonormal columns: a constant, and what warm items' texts have in common.

    Parameters
    ----------
    units : ndarray, float32 (m, k)
        Unit rows of the warm items.
    columns : int

    Returns
    -------
    ndarray, float32 (m, columns)
        Zeros where texts have fewer directions.
    """
    values, vectors = eigh(units.T @ units)
    leading = units @ vectors[:, np.argsort(-values)[:columns]]
    constant = np.ones((len(units), 1), np.float32)
    made, triangle = qr(np.concatenate([constant, leading], 1), mode="economic")
    weak = np.abs(np.diag(triangle)) <= _LEAST * np.abs(triangle[0, 0])
    made[:, weak] = 0
    basis = np.zeros((len(units), columns), np.float32)
    basis[:, : made.shape[1]] = made[:, :columns]
    return basis


def _kept(axes: np.ndarray, sizes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest of what is no noise; one direction of size 0 where there is nothing."""
    kept = sizes > _LEAST * max(sizes.max(initial=0), 1e-30)
    kept[count:] = False
    if not kept.any():
        return np.zeros((len(axes), 1), np.float32), np.zeros(1, np.float32)
    return axes[:, kept].astype(np.float32), sizes[kept].astype(np.float32)
