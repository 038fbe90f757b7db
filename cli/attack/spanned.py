"""Histories that lie in a few known dimensions: the directions of a sum of pairs.

The largest directions of Σ_u x_u x_uᵀ / n_u span most users' histories x_u, or nearly, also where
there are more users than directions. A vector of zeros and ones of which nearly nothing is left
outside of so few dimensions is hardly an accident.
"""

import numpy as np
from scipy.sparse import csr_array

AXES, SIZES = "axes", "sizes"
"""The directions, orthonormal columns, and how much each counts."""

_LEFT = 0.1
"""Most of a history's square that may be left outside."""
_SLACK, _FLAT = 0.02, 1e-3
_FEW = 0.25
"""Most dimensions, as a share of the items."""
_LONGEST = 200
_SAME = 0.5
"""Share of two claims' items, among all of both, above which they are one user's."""
_LEAST = 1e-3
"""Least square of an item's row, for it to be in anybody's history."""


def people_in_span(axes: np.ndarray, sizes: np.ndarray, users: int) -> list[np.ndarray]:
    """Histories that the directions span, int64 (interactions,) each, the surest first.

    For each item, the others are ranked by the item's row of A diag(s) Aᵀ. Of the beginnings of
    that list, the shortest is taken of which about the smallest share is left outside of the span
    of A: several users' histories together are in the span as well.

    Parameters
    ----------
    axes : ndarray, float64 (warm, k)
        A, orthonormal columns.
    sizes : ndarray, float64 (k,)
        s, up to a factor.
    users : int
        At most so many histories are claimed.
    """
    if axes.shape[1] > _FEW * len(axes):
        return []
    found: list[tuple[float, np.ndarray]] = []
    scaled = axes * sizes
    counts = np.arange(1, min(_LONGEST, len(axes)) + 1)
    for item in np.flatnonzero(np.square(axes).sum(1) > _LEAST):
        ranked = np.argsort(-(axes @ scaled[item]))[: len(counts)]
        left = 1 - np.square(np.cumsum(axes[ranked], 0)).sum(1) / counts
        last = int((left < left.min() + _SLACK).argmax())
        last += int(np.append(np.diff(left[last:]) > -_FLAT, True).argmax())  # to the next valley
        if left[last] < _LEFT:
            found.append((float(left[last]), np.sort(ranked[: last + 1])))
    found.sort(key=lambda one: (round(one[0], 2), len(one[1])))  # one user before two together
    return _apart([claim for _, claim in found], len(axes))[:users]


def _apart(claims: list[np.ndarray], width: int) -> list[np.ndarray]:
    """Claims that are not mostly the same as one before."""
    if not claims:
        return []
    offsets = np.cumsum([0, *map(len, claims)])
    items = np.concatenate(claims)
    table = csr_array((np.ones(len(items)), items, offsets), shape=(len(claims), width))
    shared = (table @ table.T).toarray()
    lengths = np.diag(shared)
    same = shared > _SAME * (lengths[:, None] + lengths - shared)
    chosen: list[int] = []
    for claim in range(len(claims)):
        if not same[claim, chosen].any():
            chosen.append(claim)
    return [claims[claim] for claim in chosen]
