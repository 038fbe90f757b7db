"""A large matrix of weights between cold and warm items in few numbers for each item."""

from dataclasses import dataclass

import numpy as np
from sklearn.utils.extmath import randomized_svd

_ROWS = 1024


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
    for begin in range(0, cold if kept else 0, _ROWS):
        part = slice(begin, begin + _ROWS)
        rest = weights[part] - left[part] @ right.T
        largest = np.argpartition(-np.abs(rest), kept - 1, axis=1)[:, :kept]
        columns[part] = np.sort(largest, axis=1)
        values[part] = np.take_along_axis(rest, columns[part].astype(np.int64), axis=1)
    return Compact(left, right, columns, values)
