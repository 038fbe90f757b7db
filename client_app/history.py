"""Scores of cold items from each user's own history: nothing is learnt from other users.

The server sends what it knows from item texts (`server_app.kernels` makes it); the histories stay
on the node. All users of a call are scored at once, for some items at a time to bound memory.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from common.users.ragged import Ragged

CHUNK_NUMBERS = 2**22
"""Numbers of (warm items × cold items) that are held at once."""
_LEAST = torch.finfo(torch.float32).tiny


def kernel_scores(histories: Ragged, warm: Tensor, items: Tensor, beta: float) -> Tensor:
    """Log mean exp(β cos) over each user's history.

    A soft maximum of the cosines to the items of the history: towards 0, β ranks as their mean
    does, and the larger it is, the more the nearest item of the history decides. exp(β (cos − 1))
    lies between exp(−2β) and 1, which float32 holds for β up to 43; beyond that, items far from
    the whole history tie at the bottom.

    Parameters
    ----------
    histories : Ragged
        Rows of ``warm`` of each user.
    warm : Tensor, float32 (warm, d)
        Unit rows.
    items : Tensor, float32 (items, d)
        Unit rows of the items to be scored.
    beta : float
        β, above 0.

    Returns
    -------
    Tensor, float32 (users, items)
        All items of a user without a history tie.
    """

    def similarities(rows: Tensor, part: slice) -> Tensor:
        return ((warm[rows] @ items[part].T - 1) * beta).exp_()

    means = _pooled(histories, len(items), similarities, "mean")
    return means.clamp_(min=_LEAST).log_() + beta


def weight_scores(histories: Ragged, weights: Tensor) -> Tensor:
    """Sum of each item's weights on a user's history: x Cᵀ for the 0/1 row x of the history.

    Dividing by the length of the history changes no ranking, so this ranks as the mean does.

    Parameters
    ----------
    histories : Ragged
        Columns of ``weights`` of each user.
    weights : Tensor, float32 (items, warm)
        C: the items to be scored as weighted sums of warm ones.

    Returns
    -------
    Tensor, float32 (users, items)
        Zeros for a user without a history.
    """

    def columns(rows: Tensor, part: slice) -> Tensor:
        return weights[part][:, rows].T.contiguous()

    return _pooled(histories, len(weights), columns, "sum")


def _pooled(
    histories: Ragged, items: int, values: Callable[[Tensor, slice], Tensor], mode: str
) -> Tensor:
    """Sum or mean over each history of a number for each (warm item, item), float32 (users, items).

    Parameters
    ----------
    histories : Ragged
    items : int
    values : Callable
        Rows of warm items, int64 (own,), and a range of items → the numbers, float32 (own, part).
    mode : str
        'sum' or 'mean'.
    """
    scores = torch.zeros(len(histories.counts), items)
    used, inverse = np.unique(histories.items, return_inverse=True)
    if not len(used):
        return scores
    rows, places = torch.from_numpy(used), torch.from_numpy(inverse)
    offsets = torch.from_numpy(histories.offsets[:-1])
    size = max(1, CHUNK_NUMBERS // len(used))
    for begin in range(0, items, size):
        part = slice(begin, begin + size)
        scores[:, part] = embedding_bag(places, values(rows, part), offsets, mode=mode)
    return scores
