"""How similar users of two sets are, pair by pair, as sparse products in chunks of users."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

Measure = Literal["jaccard", "cosine"]

PAIRS = 4_000_000
"""Pairs of users that are compared at once: some 100 MB where all of them share an item."""

BINS = 10
"""Rows of `Profile.table`, each a tenth of similarity wide."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Jaccard similarities of the users on a left side to those on a right side.

    Parameters
    ----------
    nearest : ndarray, float64 (n,)
        Of each user on the left to the most similar one on the right.
    table : ndarray, int64 (10,)
        Pairs with a similarity from k/10 to below (k + 1)/10; the last holds those of 1 too.
    """

    nearest: np.ndarray
    table: np.ndarray


def nearest(
    left: csr_array, right: csr_array, measure: Measure = "jaccard", pairs: int = PAIRS
) -> np.ndarray:
    """Similarity of each user on the left to the most similar one on the right.

    Parameters
    ----------
    left : csr_array, bool (n, items)
    right : csr_array, bool (m, items)
    measure : str
        Of users with a and b items, s of them shared: 'jaccard' s / (a + b − s) (SDRM,
        arXiv 2311.03488, equation 4), or 'cosine' s / √(ab). It is 0 for a user without an item.
    pairs : int
        Pairs that are compared at once, which bounds the memory.

    Returns
    -------
    ndarray, float64 (n,)
    """
    found = np.zeros(left.shape[0])
    for shared in _shared(left, right, pairs):
        both, a, b = shared.both, shared.left_sizes, shared.right_sizes
        values = (
            both / (a + b - both)
            if measure == "jaccard"
            else both / np.sqrt(a.astype(np.float64) * b)
        )
        shared.put_largest(values, found)
    return found


def profile(left: csr_array, right: csr_array, others: bool = False, pairs: int = PAIRS) -> Profile:
    """Nearest users and the table of all pairs (SDRM, arXiv 2311.03488, table 5), in one pass.

    Parameters
    ----------
    left : csr_array, bool (n, items)
    right : csr_array, bool (m, items)
    others : bool
        Whether the left side is the first n users of the right side; none of them is then
        compared with itself.
    pairs : int
        Pairs that are compared at once, which bounds the memory.
    """
    found = np.zeros(left.shape[0])
    table = np.zeros(BINS, dtype=np.int64)
    for shared in _shared(left, right, pairs):
        both = shared.both
        union = shared.left_sizes + shared.right_sizes - both
        values, tenths = both / union, BINS * both // union  # in whole numbers: no rounding
        if others:
            same = shared.rows == shared.columns
            values[same] = 0.0
            tenths = tenths[~same]
        shared.put_largest(values, found)
        table += np.bincount(np.minimum(tenths, BINS - 1), minlength=BINS)
    whole = left.shape[0] * (right.shape[0] - others)
    table[0] += whole - table.sum()  # pairs that share nothing
    return Profile(found, table)


def jaccard_to(user: csr_array, others: csr_array) -> np.ndarray:
    """Jaccard similarity of one user, bool (1, items), to each of others, float64 (others,)."""
    shared = others[:, user.indices].sum(axis=1)
    union = others.sum(axis=1) + user.nnz - shared
    return np.asarray(shared / np.maximum(union, 1))


@dataclass(frozen=True, eq=False)
class _Shared:
    """Pairs that share an item, of a chunk of users on the left; all int32 (pairs,).

    Parameters
    ----------
    rows, columns : ndarray
        The users of each pair, on the left and on the right; in ascending order of rows.
    both, left_sizes, right_sizes : ndarray
        Items that the pair shares, and items of either.
    """

    rows: np.ndarray
    columns: np.ndarray
    both: np.ndarray
    left_sizes: np.ndarray
    right_sizes: np.ndarray

    def put_largest(self, values: np.ndarray, target: np.ndarray) -> None:
        """The largest value of each row into its place in ``target``."""
        if len(values):
            firsts = np.flatnonzero(np.diff(self.rows, prepend=-1))
            target[self.rows[firsts]] = np.maximum.reduceat(values, firsts)


def _shared(left: csr_array, right: csr_array, pairs: int) -> Iterator[_Shared]:
    # Numbers of 32 bits take half the time of those of 64.
    sizes = left.sum(axis=1).astype(np.int32), right.sum(axis=1).astype(np.int32)
    columns = right.astype(np.int32).T.tocsr()
    rows = max(1, pairs // max(1, right.shape[0]))
    for first in range(0, left.shape[0], rows):
        found = (left[first : first + rows].astype(np.int32) @ columns).tocsr()
        numbers = np.arange(first, first + found.shape[0], dtype=np.int32)
        row = np.repeat(numbers, np.diff(found.indptr))
        column = found.indices
        yield _Shared(row, column, found.data, sizes[0][row], sizes[1][column])
