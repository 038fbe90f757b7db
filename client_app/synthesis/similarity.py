"""How similar users of two sets are, pair by pair, as sparse products in chunks of users."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

Measure = Literal["jaccard", "cosine"]

PAIRS = 4_000_000
"""Pairs of users that are compared at once: some 100 MB where all of them share an item."""

BINS = 10
"""Rows of `jaccard_table`, each a tenth of similarity wide."""


def shared_items(
    left: csr_array, right: csr_array, pairs: int = PAIRS
) -> Iterator[tuple[slice, csr_array]]:
    """Numbers of items that users share, for chunks of users on the left.

    Parameters
    ----------
    left : csr_array, bool (n, items)
    right : csr_array, bool (m, items)
    pairs : int
        Pairs in a chunk, which bounds the memory.

    Yields
    ------
    slice
        The users of the chunk.
    csr_array, int32 (users of the chunk, m)
        Holds pairs that share an item.
    """
    columns = right.astype(np.int32).T.tocsr()
    rows = max(1, pairs // max(1, right.shape[0]))
    for first in range(0, left.shape[0], rows):
        chunk = slice(first, min(first + rows, left.shape[0]))
        yield chunk, (left[chunk].astype(np.int32) @ columns).tocsr()


def nearest(
    left: csr_array,
    right: csr_array,
    measure: Measure = "jaccard",
    others: bool = False,
    pairs: int = PAIRS,
) -> np.ndarray:
    """Similarity of each user on the left to the most similar one on the right.

    Parameters
    ----------
    left : csr_array, bool (n, items)
    right : csr_array, bool (m, items)
    measure : str
        Of users with a and b items, s of them shared: 'jaccard' s / (a + b − s) (SDRM,
        arXiv 2311.03488, equation 4), or 'cosine' s / √(ab). It is 0 for a user without an item.
    others : bool
        Whether both sides are the same users, of which none is compared with itself.
    pairs : int
        Pairs that are compared at once.

    Returns
    -------
    ndarray, float64 (n,)
    """
    sizes = left.sum(axis=1).astype(np.int64), right.sum(axis=1).astype(np.int64)
    found = np.zeros(left.shape[0])
    for chunk, shared in shared_items(left, right, pairs):
        rows, columns = _pairs(shared)
        a, b = sizes[0][chunk][rows], sizes[1][columns]
        both = shared.data
        values = both / (a + b - both) if measure == "jaccard" else both / np.sqrt(a * b)
        if others:
            values[rows + chunk.start == columns] = 0.0
        having = np.flatnonzero(np.diff(shared.indptr))
        if len(having):
            found[chunk][having] = np.maximum.reduceat(values, shared.indptr[having])
    return found


def jaccard_table(
    left: csr_array, right: csr_array, others: bool = False, pairs: int = PAIRS
) -> np.ndarray:
    """Pairs of users by Jaccard similarity in tenths (SDRM, arXiv 2311.03488, table 5).

    Parameters
    ----------
    left, right, others, pairs
        As in `nearest`.

    Returns
    -------
    ndarray, int64 (10,)
        Pairs with a similarity from k/10 to below (k + 1)/10; the last holds those of 1 too.
    """
    sizes = left.sum(axis=1).astype(np.int64), right.sum(axis=1).astype(np.int64)
    found = np.zeros(BINS, dtype=np.int64)
    for chunk, shared in shared_items(left, right, pairs):
        rows, columns = _pairs(shared)
        both = shared.data.astype(np.int64)
        tenths = BINS * both // (sizes[0][chunk][rows] + sizes[1][columns] - both)
        if others:
            tenths = tenths[rows + chunk.start != columns]
        found += np.bincount(np.minimum(tenths, BINS - 1), minlength=BINS)
    whole = left.shape[0] * (right.shape[0] - others)
    found[0] += whole - found.sum()  # pairs that share nothing
    return found


def _pairs(shared: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every entry, int64 (entries,)."""
    rows = np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
    return rows, shared.indices.astype(np.int64)
