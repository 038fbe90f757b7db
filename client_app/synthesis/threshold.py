"""Scores of synthetic users turned into interactions by one threshold over all users and items.

SDRM, section 5.2 (arXiv 2311.03488): the threshold is the quantile of all scores at the sparsity
of the real data, so that synthetic users fill as large a share of the cells as real ones do. It is
exact, and few scores are held at once, however many users there are.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from client_app.synthesis.base import Sample, Watch, unwatched
from common.errors import OverflowedError, SnowdropError
from common.metrics import order_keys

Scores = Callable[[slice], Tensor]
"""Scores of a range of synthetic users for all items, float32 (users of the range, items); the
same each time that it is asked for the same range."""

MEMORY = 256 * 2**20
"""Bytes of scores that are held at once; more scores than that are made three times."""

CHUNK = 4 * 2**20
"""Scores that are made at once."""

_BINS = 2**16
"""Values of one half of a 32-bit number."""


def sparsity(matrix: csr_array) -> float:
    """Share of a matrix's cells that are empty."""
    return float(1 - matrix.nnz / (matrix.shape[0] * matrix.shape[1]))


def check_users(users: int) -> None:
    """Raise a SnowdropError where no synthetic user is asked for."""
    if users < 1:
        raise SnowdropError(f"{users} synthetic users cannot be made; ask for 1 or more")


def thresholded(
    users: int,
    items: int,
    scores: Scores,
    empty: float,
    watch: Watch = unwatched,
    memory: int = MEMORY,
    chunk: int = CHUNK,
) -> Sample:
    """Synthetic users from their scores.

    A cell is a like where its score reaches the quantile of all scores at ``empty``, and a dislike
    where it is below the quantile at 1 − ``empty`` and no like.

    Parameters
    ----------
    users, items : int
    scores : Scores
    empty : float
        Share of the cells that stay empty, 0 to 1.
    watch : Watch
    memory, chunk : int
        Bytes of scores that are held at once, and scores that are made at once.

    Raises
    ------
    SnowdropError
        If there are to be no users, or scores are not finite.
    """
    check_users(users)
    rows = max(1, chunk // items)
    parts = [slice(at, min(at + rows, users)) for at in range(0, users, rows)]
    cells = users * items
    ranks = [_rank(cells, empty), _rank(cells, 1 - empty)]
    if cells * 4 <= memory:
        held = list(_made(scores, parts, watch, 0, users))
        flat = np.concatenate([part.ravel().numpy() for part in held])
        like, dislike = np.partition(flat, sorted(set(ranks)))[ranks].tolist()
        return _sample(held, items, like, dislike)
    passes = (_made(scores, parts, watch, k * users, 3 * users) for k in range(3))
    like, dislike = _selected(next(passes), next(passes), ranks)
    return _sample(next(passes), items, like, dislike)


def _rank(cells: int, share: float) -> int:
    """Place, among ascending scores, of the smallest one that reaches the quantile at ``share``.

    The quantile lies between two neighbours (linear interpolation), so a score reaches it exactly
    where it reaches the upper one.
    """
    return min(math.ceil(min(max(share, 0.0), 1.0) * (cells - 1)), cells - 1)


def _made(
    scores: Scores, parts: Sequence[slice], watch: Watch, before: int, total: int
) -> Iterator[Tensor]:
    """Scores of each part, on the CPU, checked."""
    for part in parts:
        watch("scores", before + part.start, total)
        own = scores(part).float()
        if not bool(own.isfinite().all()):
            raise OverflowedError(
                "the scores of synthetic users overflow: train with a lower learning rate"
            )
        yield own.cpu()
    watch("scores", before + parts[-1].stop, total)


def _selected(
    first: Iterable[Tensor], again: Iterable[Tensor], ranks: Sequence[int]
) -> list[float]:
    """Scores at some ranks, from two passes over all scores: radix selection.

    The first pass counts the upper halves of the scores' order-preserving keys, the second one the
    lower halves of those that share a wanted upper half.
    """
    upper = np.zeros(_BINS, dtype=np.int64)
    for scores in first:
        upper += _counts(_upper(order_keys(scores)))
    before = np.concatenate([[0], upper.cumsum()])
    bins = [int(np.searchsorted(before, rank, side="right")) - 1 for rank in ranks]
    lower = {wanted: np.zeros(_BINS, dtype=np.int64) for wanted in bins}
    for scores in again:
        keys = order_keys(scores)
        halves = _upper(keys)
        for wanted, counts in lower.items():
            counts += _counts(keys[halves == wanted] & (_BINS - 1))
    found = []
    for rank, wanted in zip(ranks, bins, strict=True):
        low = int(np.searchsorted(lower[wanted].cumsum(), rank - before[wanted], side="right"))
        found.append(_score((wanted - _BINS // 2) * _BINS + low))
    return found


def _upper(keys: Tensor) -> Tensor:
    return (keys >> 16) + _BINS // 2


def _counts(halves: Tensor) -> np.ndarray:
    return torch.bincount(halves.ravel(), minlength=_BINS).numpy()


def _score(key: int) -> float:
    """The score that has a key: `order_keys` backwards."""
    bits = np.int32(key if key >= 0 else key ^ 0x7FFFFFFF)
    return float(bits.view(np.float32))


def _sample(parts: Iterable[Tensor], items: int, like: float, dislike: float) -> Sample:
    def cut(scores: Tensor) -> tuple[Tensor, Tensor]:
        liked = scores >= like
        return liked, (scores < dislike) & ~liked

    return gathered(map(cut, parts), items)


def gathered(parts: Iterable[tuple[Tensor, Tensor]], items: int) -> Sample:
    """Synthetic users from their likes and dislikes, each bool (some users, items) on the CPU."""
    likes, dislikes = _Grown(items), _Grown(items)
    for liked, disliked in parts:
        likes.add(liked)
        dislikes.add(disliked)
    return Sample(likes.matrix(), dislikes.matrix())


class _Grown:
    """A sparse matrix of bool that grows by rows."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._counts, self._columns = _Buffer(np.int64), _Buffer(np.int32)

    def add(self, rows: Tensor) -> None:
        self._counts.add(rows.sum(1).numpy())
        self._columns.add(rows.nonzero()[:, 1].numpy())

    def matrix(self) -> csr_array:
        counts, columns = self._counts.whole(), self._columns.whole()
        starts = np.concatenate([[0], counts.cumsum()])
        ones = np.ones(len(columns), dtype=bool)
        return csr_array((ones, columns, starts), shape=(len(counts), self._items))


class _Buffer:
    """One array that grows; many small ones would leave gaps in the memory between them, which
    large ones cannot fill."""

    def __init__(self, kind: type[np.integer]) -> None:
        self._held, self._used = np.empty(_BINS, kind), 0

    def add(self, values: np.ndarray) -> None:
        end = self._used + len(values)
        if end > len(self._held):
            self._held.resize(max(end, 2 * len(self._held)), refcheck=False)
        self._held[self._used : end] = values
        self._used = end

    def whole(self) -> np.ndarray:
        return self._held[: self._used].copy()
