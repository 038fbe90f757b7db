"""How far synthetic users are like real ones as a whole: counts, popularity, repetition."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Fidelity:
    """Synthetic users against real ones.

    Parameters
    ----------
    users_distance : float
        Kolmogorov–Smirnov distance between the distributions of items per user: 0 where they are
        the same, 1 where they do not overlap.
    items_distance : float
        The same of users per item, as shares of the users.
    popularity_distance : float
        Total variation distance between the items' shares of all interactions: the part of the
        interactions that would have to move to other items.
    popularity_correlation : float
        Spearman's rank correlation of the items' numbers of users; nan where a side has the same
        number everywhere.
    items_unused : int
        Items of real users that no synthetic user has.
    repeated : int
        Synthetic users that have the same items as an earlier one.
    """

    users_distance: float
    items_distance: float
    popularity_distance: float
    popularity_correlation: float
    items_unused: int
    repeated: int


def compare(synthetic: csr_array, real: csr_array) -> Fidelity:
    """Statistics of two sets of users.

    Parameters
    ----------
    synthetic : csr_array, bool (n, items)
    real : csr_array, bool (m, items)
    """
    from scipy.stats import ks_2samp, spearmanr

    made, true = users_per_item(synthetic), users_per_item(real)
    constant = np.ptp(made) == 0 or np.ptp(true) == 0

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return float(ks_2samp(one, other, method="asymp").statistic)

    return Fidelity(
        users_distance=distance(items_per_user(synthetic), items_per_user(real)),
        items_distance=distance(made / max(1, synthetic.shape[0]), true / max(1, real.shape[0])),
        popularity_distance=float(np.abs(_shares(made) - _shares(true)).sum() / 2),
        popularity_correlation=float("nan") if constant else float(spearmanr(made, true)[0]),
        items_unused=int(((made == 0) & (true > 0)).sum()),
        repeated=synthetic.shape[0] - distinct(synthetic),
    )


def items_per_user(likes: csr_array) -> np.ndarray:
    """Items of each user, int64 (users,)."""
    return np.diff(likes.indptr).astype(np.int64)


def users_per_item(likes: csr_array) -> np.ndarray:
    """Users of each item, int64 (items,)."""
    return np.bincount(likes.indices, minlength=likes.shape[1]).astype(np.int64)


def distinct(likes: csr_array) -> int:
    """Number of different users.

    Users are told apart by sums of a random 64-bit number for each of their items: among n users,
    a pair of different ones has the same sum with a probability of at most n² / 2⁶⁵.
    """
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 2**64, likes.shape[1], dtype=np.uint64)
    ends = np.concatenate([[np.uint64(0)], np.cumsum(keys[likes.indices], dtype=np.uint64)])
    return len(np.unique(ends[likes.indptr[1:]] - ends[likes.indptr[:-1]]))


def doubling_bins(most: int) -> list[tuple[int, int]]:
    """Bins of counts: 0, 1, 2–3, 4–7, … up to the one that holds ``most``; both ends belong."""
    bins = [(0, 0)]
    while bins[-1][1] < most:
        first = bins[-1][1] + 1
        bins.append((first, 2 * first - 1))
    return bins


def shares_of_bins(counts: np.ndarray, bins: list[tuple[int, int]]) -> list[float]:
    """Share of the counts in each bin."""
    edges = [first for first, _ in bins]
    places = np.searchsorted(edges, counts, side="right") - 1
    return (np.bincount(places, minlength=len(bins)) / max(1, len(counts))).tolist()


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / max(1, counts.sum())
