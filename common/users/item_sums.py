"""One sum over users of what each history says of pairs of items; each user's part is bounded.

A history is x, a 0/1 row over the m warm items with n ones. Its part is x xᵀ / n (the Gram matrix
of EASE: Steck, "Embarrassingly shallow autoencoders for sparse data", arXiv 1905.03375, with users
weighted by 1 / n), or x (xᵀ Q) / (‖x‖ ‖xᵀ Q‖) for a basis Q of fewer columns. Either is a matrix of
Frobenius norm 1, whatever the history: nobody moves the sum by more than that.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from common.discrete import EXPONENT
from common.users.ragged import Ragged

CHUNK_NUMBERS = 2**22
"""Numbers that a chunk of users takes: pairs of its items, or entries of its products."""


def gram_sum(histories: Ragged, items: int) -> np.ndarray:
    """Σ_u x_u x_uᵀ / n_u, the upper triangle as `packed` has it, float64 (m (m + 1) / 2,).

    Parameters
    ----------
    histories : Ragged
    items : int
        Warm items m.
    """
    total = np.zeros((items, items))
    for part in _chunks(histories, np.square(histories.counts, dtype=np.int64)):
        x = _rows(part, items)
        x.data /= np.sqrt(np.repeat(part.counts, part.counts))
        pairs = (x.T @ x).tocoo()
        total[pairs.coords] += pairs.data  # each pair stands there once
    return packed(total)


def sketch_sum(histories: Ragged, basis: np.ndarray) -> np.ndarray:
    """Σ_u x_u (x_uᵀ Q) / (‖x_u‖ ‖x_uᵀ Q‖), float64 (m, k).

    A user whose history is at right angles to the basis adds nothing.

    Parameters
    ----------
    histories : Ragged
    basis : ndarray, float32 (m, k)
        Q.
    """
    total = np.zeros(basis.shape)
    for used, x, row in _bounded_rows(histories, basis):
        total[used] += x.T @ row
    return total


def whole_sketch_sum(histories: Ragged, basis: np.ndarray) -> np.ndarray:
    """The same sum in whole steps of 2⁻³⁰, each user's part rounded towards zero, int64 (m, k).

    Whole numbers add up exactly, so that a user's part is in the sum as it is, whoever the others
    are. Its norm is at most 2³⁰ steps: rounding towards zero makes no number larger, and each is
    made smaller by a 2⁻⁴⁰th before, which is more than errors of the arithmetic.

    Parameters
    ----------
    histories : Ragged
    basis : ndarray, float32 (m, k)
        Q.
    """
    total = np.zeros(basis.shape, np.int64)
    for used, x, row in _bounded_rows(histories, basis):
        steps = np.trunc(row * (2.0**EXPONENT * (1 - 2.0**-40))).astype(np.int64)
        total[used] += x.astype(np.int64).T @ steps
    return total


def _bounded_rows(
    histories: Ragged, basis: np.ndarray
) -> Iterator[tuple[np.ndarray, csr_array, np.ndarray]]:
    """The items that some users have, their histories over these, and x_uᵀ Q / (‖x_u‖ ‖x_uᵀ Q‖)."""
    for part in _chunks(histories, np.full(len(histories.counts), basis.shape[1])):
        used, columns = np.unique(part.items, return_inverse=True)
        x = _rows(Ragged(part.offsets, columns), len(used))
        seen = x @ basis[used].astype(np.float64)
        size = np.sqrt(part.counts) * np.linalg.norm(seen, axis=1)
        seen *= np.divide(1, size, out=np.zeros_like(size), where=size > 1e-6)[:, None]
        yield used, x, seen


def item_sums(histories: Ragged, items: int, basis: np.ndarray | None) -> dict[str, np.ndarray]:
    """The sum by its name: ``sketch`` where there is a basis Q, else ``gram``."""
    if basis is None:
        return {"gram": gram_sum(histories, items)}
    return {"sketch": sketch_sum(histories, basis)}


def packed(symmetric: np.ndarray) -> np.ndarray:
    """The upper triangle of a symmetric matrix, with the same norm: off-diagonal entries times √2.

    Parameters
    ----------
    symmetric : ndarray, float64 (m, m)
        Spoilt afterwards.

    Returns
    -------
    ndarray, float64 (m (m + 1) / 2,)
    """
    diagonal = np.diag_indices(len(symmetric))
    symmetric[diagonal] /= np.sqrt(2)
    symmetric *= np.sqrt(2)
    return symmetric[_upper(len(symmetric))]


def unpacked(numbers: np.ndarray, items: int) -> np.ndarray:
    """The symmetric matrix that `packed` made ``numbers`` of, of their dtype (m, m)."""
    whole = np.zeros((items, items), numbers.dtype)
    whole[_upper(items)] = numbers / np.sqrt(2)
    whole += whole.T
    whole[np.diag_indices(items)] /= np.sqrt(2)
    return whole


def _upper(items: int) -> np.ndarray:
    return np.tri(items, dtype=bool).T


def _rows(lists: Ragged, items: int) -> csr_array:
    shape = len(lists.counts), items
    return csr_array((np.ones(len(lists.items)), lists.items, lists.offsets), shape=shape)


def _chunks(histories: Ragged, numbers: np.ndarray) -> Iterator[Ragged]:
    """The users in parts that take `CHUNK_NUMBERS` together, or one user each."""
    ends = np.cumsum(numbers)
    begin = 0
    while begin < len(ends):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + CHUNK_NUMBERS, side="right")))
        yield histories.take(np.arange(begin, end))
        begin = end
