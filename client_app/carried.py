"""Scores of new items by a user's history beside what a federation has learnt of warm items.

Both are carried over to new items by weights of texts, which the server makes (`TextWeights`).
"""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

from client_app.methods.base import Local
from client_app.scorers import Scorer, standardised
from common.errors import SnowdropError
from common.users.ragged import Ragged


class HistoryBeside(Scorer):
    """(1 − share) · standard(x C') + share · standard(what was learnt), each over a user's items.

    A standardised score has mean 0 and deviation 1 over the items that are ranked, so that a share
    means the same however many they are. The weights of texts are C = U V' + S. Needs ``items``: U,
    (items, r); ``warm``: V, (warm, r); ``columns``, int32 (items, s), and ``values``, (items, s):
    S; ``shares``: (1, w). The forms are all pairs of something learnt and a share. ``asked``,
    (1, 1), is the share of users to measure by; without it all are asked.
    """

    def __init__(self, local: Local) -> None:
        self._histories = local.histories
        self._own = TextWeights(local, "")
        self._shares = local.table("shares", 1)[0].tolist()
        self.share = local.number("asked") if "asked" in local.arrays else 1.0
        if not 0 < self.share <= 1:
            raise SnowdropError("'asked' must be a share above 0 and at most 1")

    def __call__(self, users: np.ndarray) -> Tensor:
        return next(self.forms(users))

    def forms(self, users: np.ndarray) -> Iterator[Tensor]:
        own = self._histories.take(users)
        history = standardised(self._own.carried(own, None))
        for learnt in self.learnt(own):
            further = standardised(learnt)
            for share in self._shares:
                yield (1 - share) * history + share * further

    @abstractmethod
    def learnt(self, own: Ragged) -> Iterator[Tensor]:
        """Scores of users with these histories by what was learnt, float32 (users, items) each."""


class TextWeights:
    """Weights of the ranked items on the warm ones, U V' + S.

    Parameters
    ----------
    local : Local
    prefix : str
        Of the names of their arrays in the message.
    """

    def __init__(self, local: Local, prefix: str) -> None:
        self._items = local.table(f"{prefix}items", local.items)
        self._warm = local.table(f"{prefix}warm", local.warm, self._items.shape[1])
        self._sparse = _sparse(local, prefix)

    def carried(self, own: Ragged, weights: Tensor | None) -> Tensor:
        """x C', or (x · weights) C', float32 (users, items)."""
        data = (
            np.ones(len(own.items), np.float32) if weights is None else weights[own.items].numpy()
        )
        shape = len(own.counts), len(self._warm)
        rows = csr_array((data, own.items, own.offsets), shape=shape)
        sums = sums_of_rows(own, self._warm, weights)
        return sums @ self._items.T + torch.from_numpy((rows @ self._sparse.T).toarray())

    def carry(self, rows: Tensor) -> Tensor:
        """C times a number of each warm item, or several, float32 (warm, k) → (items, k)."""
        return self._items @ (self._warm.T @ rows) + torch.from_numpy(self._sparse @ rows.numpy())

    def through(self, axes: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """A B as 1 − 1/d, float32 (warm,), and f A' (C / d)', float32 (a, items)."""
        one = 1 / (1 - (axes.square() @ gain))
        return 1 - one, gain[:, None] * self.carry(axes * one[:, None]).T


def sums_of_rows(own: Ragged, rows: Tensor, weights: Tensor | None) -> Tensor:
    """The sum of the rows of each user's items, each times its weight, float32 (users, k)."""
    items, offsets = torch.from_numpy(own.items), torch.from_numpy(own.offsets[:-1])
    each = None if weights is None else weights[items]
    return embedding_bag(items, rows, offsets, mode="sum", per_sample_weights=each)


def _sparse(local: Local, prefix: str) -> csr_array:
    """S, float32 (items, warm)."""
    values = local.table(f"{prefix}values", local.items).numpy()
    columns = local.arrays.get(f"{prefix}columns")
    if columns is None or columns.shape != values.shape or columns.dtype.kind != "i":
        raise SnowdropError(f"'{prefix}columns' are missing, or not as many as '{prefix}values'")
    if columns.size and not 0 <= columns.min() <= columns.max() < local.warm:
        raise SnowdropError(f"'{prefix}columns' name warm items that the catalogue lacks")
    offsets = np.arange(len(values) + 1) * values.shape[1]
    return csr_array((values.ravel(), columns.ravel(), offsets), shape=(len(values), local.warm))
