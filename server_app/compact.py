"""A large matrix of weights between cold and warm items in few numbers for each item."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve
from sklearn.utils.extmath import randomized_svd

from server_app.kernels import text_kernel

_ROWS = 1024
_COLUMNS = 2**16


@dataclass(frozen=True, eq=False)
class Compact:
    """C ≈ U V' + S: what items have in common, and each one's largest weights beside that."""

    items: np.ndarray  # float32 (cold, r): U
    warm: np.ndarray  # float32 (warm, r): V
    columns: np.ndarray  # int32 (cold, s): where the entries of S stand
    values: np.ndarray  # float32 (cold, s)

    def rows(self, part: slice) -> "Compact":
        """The same for some of the cold items."""
        return Compact(self.items[part], self.warm, self.columns[part], self.values[part])


def compact(weights: np.ndarray, rank: int, neighbours: int) -> Compact:
    """A matrix as a sum of one of low rank and one with few entries in each row.

    The first is a truncated singular value decomposition (randomised: Halko, Martinsson and Tropp,
    arXiv 0909.4061), the second the largest entries of what it leaves. With as many directions as
    the smaller side, or as many entries as a row has, nothing is lost.

    Parameters
    ----------
    weights : ndarray, float32 (cold, warm)
    rank : int
        Directions r of the first, as far as there are so many.
    neighbours : int
        Entries s of each row of the second, as far as there are so many.
    """
    cold, warm = weights.shape
    rank, kept = min(rank, cold, warm), min(neighbours, warm)
    if not rank:
        left, right = np.zeros((cold, 0), np.float32), np.zeros((warm, 0), np.float32)
    else:
        # A fixed seed: the same texts give the same numbers in every run.
        u, sizes, v = randomized_svd(weights, rank, n_iter=4, random_state=0)
        root = np.sqrt(sizes)
        left, right = (u * root).astype(np.float32), (v.T * root).astype(np.float32)
    columns, values = np.zeros((cold, kept), np.int32), np.zeros((cold, kept), np.float32)
    for part in _slices(cold if kept else 0, _ROWS):
        rest = weights[part] - left[part] @ right.T
        columns[part] = np.sort(_largest(rest, kept), axis=1)
        values[part] = np.take_along_axis(rest, columns[part].astype(np.int64), axis=1)
    return Compact(left, right, columns, values)


def compact_by_landmarks(
    warm: np.ndarray,
    cold: np.ndarray,
    sharpness: float,
    ridge: float,
    rank: int,
    neighbours: int,
    landmarks: np.ndarray,
) -> Compact:
    """What `compact` makes of `server_app.kernels.ridge_weights`, without a matrix of warm × warm.

    The kernel is K ≈ Ψ Ψ', where Ψ comes of the main directions of the kernel between some warm
    items (Nyström: Williams and Seeger, "Using the Nyström method to speed up kernel machines",
    NeurIPS 2000). That gives the first part of the weights. Of what Ψ leaves of K, every direction
    is small beside λ, so that (K + λ I)⁻¹ is nearly 1 / (λ + δ) there, with δ the mean of its
    diagonal: the second part holds the largest entries of what is left of k, divided by that.
    Memory grows with warm · ``rank`` and cold · warm / (cold rows of a chunk).

    Parameters
    ----------
    warm : ndarray, float32 (warm, k)
        Unit rows.
    cold : ndarray, float32 (cold, k)
        Unit rows.
    sharpness, ridge : float
        As for `server_app.kernels.ridge_weights`.
    rank, neighbours : int
        As for `compact`.
    landmarks : ndarray, int64
        Rows of the warm items whose kernel is decomposed.
    """
    chosen = warm[landmarks]
    own = text_kernel(chosen, chosen, sharpness)
    vectors, sizes, _ = randomized_svd(own, min(rank, len(own)), n_iter=4, random_state=0)
    projection = vectors / np.sqrt(np.maximum(sizes, 1e-6 * sizes[0]))

    def features(units: np.ndarray) -> np.ndarray:
        made = np.empty((len(units), projection.shape[1]), np.float32)
        for part in _slices(len(units), _ROWS):
            made[part] = text_kernel(units[part], chosen, sharpness) @ projection
        return made

    of_warm, of_cold = features(warm), features(cold)
    inner = of_warm.T @ of_warm + ridge * np.eye(of_warm.shape[1], dtype=np.float32)
    items = solve(inner, of_cold.T, assume_a="pos").T.astype(np.float32)
    left = ridge + float(np.mean(1 - np.square(of_warm).sum(1)))
    kept = min(neighbours, len(warm))
    columns, values = np.zeros((len(cold), kept), np.int32), np.zeros((len(cold), kept), np.float32)
    for part in _slices(len(cold) if kept else 0, _ROWS):
        found = np.zeros((len(cold[part]), 0), np.int64), np.zeros((len(cold[part]), 0), np.float32)
        for block in _slices(len(warm), _COLUMNS):
            rest = text_kernel(cold[part], warm[block], sharpness)
            rest -= of_cold[part] @ of_warm[block].T
            places = _largest(rest, min(kept, rest.shape[1]))
            both = (
                np.concatenate([found[0], places + block.start], 1),
                np.concatenate([found[1], np.take_along_axis(rest, places, 1)], 1),
            )
            best = _largest(both[1], min(kept, both[1].shape[1]))
            found = np.take_along_axis(both[0], best, 1), np.take_along_axis(both[1], best, 1)
        order = np.argsort(found[0], axis=1)
        columns[part] = np.take_along_axis(found[0], order, 1)
        values[part] = np.take_along_axis(found[1], order, 1) / left
    return Compact(items, of_warm, columns, values)


def _largest(rows: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` entries of each row that are largest, whatever their sign, int64."""
    return np.argpartition(-np.abs(rows), count - 1, axis=1)[:, :count]


def _slices(length: int, size: int) -> Iterator[slice]:
    for begin in range(0, length, size):
        yield slice(begin, min(begin + size, length))
