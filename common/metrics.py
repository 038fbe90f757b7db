"""Recall, Precision and NDCG of top-K lists, as sums over users."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def metric_names(ks: Sequence[int]) -> list[str]:
    """Names in reporting order: ``recall@20`` … ``ndcg@100``."""
    return [f"{metric}@{k}" for metric in ("recall", "precision", "ndcg") for k in ks]


def tie_order(ids: Sequence[str]) -> Tensor:
    """Place of each item in the order of ids, by which `rank` breaks ties.

    Parameters
    ----------
    ids : Sequence[str]
        Ids of the items that are ranked.

    Returns
    -------
    Tensor, int64 (items,)
        A permutation.
    """
    return torch.from_numpy(np.argsort(np.argsort(np.asarray(ids, dtype=str))))


def rank(scores: Tensor, tie_order: Tensor, k: int) -> Tensor:
    """Best ``k`` columns of each row, ties broken by ``tie_order`` ascending.

    Parameters
    ----------
    scores : Tensor, float32 (users, items)
    tie_order : Tensor, int64 (items,)
        A permutation: of equally scored items, the one with the smaller number comes first.
    k : int
        At most the number of items is returned.

    Returns
    -------
    Tensor, int64 (users, min(k, items))
    """
    keys = order_keys(scores).long() * 2**32 + (2**31 - tie_order)
    return torch.topk(keys, min(k, scores.shape[1]), dim=1).indices


def order_keys(scores: Tensor) -> Tensor:
    """Whole numbers in the order of float32 numbers, int32 of the same shape; −0 is like 0."""
    bits = (scores.float() + 0.0).contiguous().view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def metric_values(hits: Tensor, relevant: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """Each metric of each user, float64 (users,).

    Recall@k is hits over relevant items, Precision@k hits over k, and NDCG@k the discounted gain
    with binary relevance over that of an ideal list of min(k, relevant) hits.

    Parameters
    ----------
    hits : Tensor, bool (users, ranked items)
        Whether the item at each rank is relevant, best rank first.
    relevant : Tensor, int64 (users,)
        Number of relevant items of each user, at least 1.
    ks : Sequence[int]
    """
    gains = hits.double()
    discounts = 1 / torch.log2(torch.arange(max(ks), dtype=torch.float64) + 2)
    ideal = discounts.cumsum(0)
    values = {}
    for k in ks:
        found = gains[:, :k].sum(1)
        dcg = gains[:, :k] @ discounts[: gains[:, :k].shape[1]]
        values[f"recall@{k}"] = found / relevant
        values[f"precision@{k}"] = found / k
        values[f"ndcg@{k}"] = dcg / ideal[relevant.clamp(max=k) - 1]
    return {name: values[name] for name in metric_names(ks)}


def metric_sums(hits: Tensor, relevant: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Sums over users of `metric_values`."""
    return {name: float(v.sum()) for name, v in metric_values(hits, relevant, ks).items()}
