"""What the server makes of a sum over users of pairs of items: its main directions.

The mean over users is a Gram matrix G ≈ A diag(s) A'. With these, EASE needs no inverse:
λ (G + λ I)⁻¹ = I − A diag(s / (s + λ)) A', so a history x scores x B = x − (x − x A f A') / share,
with f = s / (s + λ) and share = diag(I − A f A'). Every λ takes the same A and s.
"""

import numpy as np
from scipy.linalg import eigh, qr, svd
from sklearn.utils.extmath import randomized_svd

_BEYOND = 0.75
"""Directions whose value is above this share of the edge of the noise are kept; chosen on
validation items of amazon-office, movielens and ml-1m, as good as 1 or better."""
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
    sketch: np.ndarray, basis: np.ndarray, count: int, noise: float = 0.0
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
    noise : float
        Standard deviation of the noise of each number of Y: only directions that stand out of it
        are kept (`edge_of_noise`).
    """
    values, vectors = _core(sketch, basis, noise)
    if not len(values):
        return _kept(np.zeros((len(sketch), 1)), np.zeros(1), count)
    factor = sketch @ (vectors / np.sqrt(values))
    axes, roots, _ = svd(factor, full_matrices=False)
    return _kept(axes, np.square(roots), count)


def reliability(sketch: np.ndarray, basis: np.ndarray, noise: float) -> float:
    """How much of what `directions_of_sketch` keeps of a noisy sketch is no noise, from 0 to 1.

    A column Y v of a direction v whose value is s has a length of about s, and noise of a length of
    σ √m. Noise alone may account for s up to its edge e. So t / (t + σ² m) of the square of the
    column is no noise, with t = s² − e², or 0 below the edge. The mean over directions, weighed by
    s.

    Parameters
    ----------
    sketch : ndarray, float32 (m, k)
    basis : ndarray, float32 (m, k)
    noise : float
        σ, standard deviation of the noise of each number.
    """
    values, _ = _core(sketch, basis, noise)
    if not len(values):
        return 0.0
    edge = edge_of_noise(noise, basis.shape[1])
    squares = np.maximum(np.square(values) - edge**2, 0)
    return float(np.average(squares / (squares + noise**2 * len(sketch)), weights=values))


def _core(sketch: np.ndarray, basis: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of Q' Y, made symmetric, that are no noise."""
    core = basis.T.astype(np.float64) @ sketch
    values, vectors = eigh((core + core.T) / 2)
    edge = _BEYOND * edge_of_noise(noise, basis.shape[1])
    kept = values > max(_LEAST * max(values[-1], 1e-30), edge)
    return values[kept], vectors[:, kept]


def edge_of_noise(noise: float, columns: int) -> float:
    """The largest eigenvalue that noise alone gives the core (Q' N + N' Q) / 2, or nearly so.

    The core is then a Gaussian orthogonal ensemble, whose entries off the diagonal have the
    variance σ² / 2, and Wigner's semicircle ends at 2 √(k σ² / 2).
    """
    return float(noise * np.sqrt(2 * columns))


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
