"""Ranking items for every user that has items to find, and sums of the metrics."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from client_app.tasks import Ranking, membership
from common.errors import SnowdropError
from common.metrics import metric_names, metric_sums, rank
from common.settings import KS

CHUNK_NUMBERS = 2**22
"""Scores that are held at once."""

Scores = Callable[[np.ndarray], Tensor]
"""Users' numbers → scores, float32 (users, items)."""

Forms = Callable[[np.ndarray], Iterator[Tensor]]
"""Users' numbers → the scores of each form of a scorer, float32 (users, items)."""


def evaluate(ranking: Ranking, scores_of: Scores) -> tuple[int, dict[str, float]]:
    """Sums of each metric over the users that have items to find.

    Parameters
    ----------
    ranking : Ranking
    scores_of : Callable
        Users' numbers → scores, float32 (users, items).

    Returns
    -------
    users : int
    sums : dict[str, float]
    """
    count, (sums,) = evaluate_forms(ranking, lambda users: iter([scores_of(users)]), 1)
    return count, sums


def evaluate_forms(
    ranking: Ranking, forms_of: Forms, forms: int
) -> tuple[int, list[dict[str, float]]]:
    """Sums of each metric for several forms of a scorer, over the same users as `evaluate`.

    Parameters
    ----------
    ranking : Ranking
    forms_of : Callable
        Users' numbers → the scores of each form, float32 (users, items).
    forms : int

    Raises
    ------
    SnowdropError
        If the scorer has another number of forms.
    """
    totals = [dict.fromkeys(metric_names(KS), 0.0) for _ in range(forms)]
    count = 0
    for users, tried, relevant in _hits_of_forms(ranking, forms_of):
        made = 0
        for hits in tried:
            if made < forms:
                for name, value in metric_sums(hits, relevant, KS).items():
                    totals[made][name] += value
            made += 1
        if made != forms:
            raise SnowdropError(f"the scorer has {made} forms, where {forms} are asked for")
        count += len(users)
    return count, totals


def ranked_hits(ranking: Ranking, scores_of: Scores) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """The best items of the users that have items to find, in parts.

    Yields
    ------
    users : ndarray, int64 (part,)
    hits : Tensor, bool (part, ranked items)
        Whether the item at each rank is relevant.
    relevant : Tensor, int64 (part,)
        Items that each user has to find.
    """
    for users, (hits,), relevant in _hits_of_forms(ranking, lambda some: iter([scores_of(some)])):
        yield users, hits, relevant


def _hits_of_forms(
    ranking: Ranking, forms_of: Forms
) -> Iterator[tuple[np.ndarray, Iterator[Tensor], Tensor]]:
    """As `ranked_hits`, with the hits of one form of a scorer after the other."""
    for users in user_chunks(np.flatnonzero(ranking.truth.counts), ranking.items):
        truth = membership(ranking.truth.take(users), ranking.items)
        yield users, _hits(ranking, forms_of(users), users, truth), truth.sum(1)


def _hits(
    ranking: Ranking, forms: Iterator[Tensor], users: np.ndarray, truth: Tensor
) -> Iterator[Tensor]:
    for scores in forms:
        best = rank(_without_known(ranking, scores, users), ranking.order, max(KS))
        yield truth.gather(1, best)


def ranked_scores(ranking: Ranking, scores_of: Scores, users: np.ndarray) -> Tensor:
    """Scores float32 (users, items); −∞ for what a user knows already."""
    return _without_known(ranking, scores_of(users), users)


def _without_known(ranking: Ranking, scores: Tensor, users: np.ndarray) -> Tensor:
    if ranking.left_out is None:
        return scores
    return scores.masked_fill(membership(ranking.left_out.take(users), ranking.items), -torch.inf)


def user_chunks(users: np.ndarray, items: int) -> list[np.ndarray]:
    """Users in parts whose scores of ``items`` items fit into `CHUNK_NUMBERS`."""
    size = max(1, CHUNK_NUMBERS // max(1, items))
    return [users[k : k + size] for k in range(0, len(users), size)]
