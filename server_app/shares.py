"""How validation items choose the share of what a federation has learnt in a score."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.settings import RunSettings
from server_app.methods.base import Scoring

NOISE = 0.2
"""Deviation over users of the difference in Recall@20 + NDCG@20 between a share and the next ones,
or between two kernels and one, measured on validation users of amazon-office and movielens."""

ASKED = 2**15
"""About how many users choose, drawn from all: more tell shares apart no better, and take longer.
"""


def likely_share(values: np.ndarray, shares: Sequence[float], users: int) -> int:
    """The place of the share that is nearest to the mean of all, each weighed by how likely it is.

    The best of many values on few users is too good by chance. With normal errors of standard error
    e, a share that is d behind the best one has the weight exp(−(d / e)² / 2).

    Parameters
    ----------
    values : ndarray, float64 (shares,)
        Recall@20 + NDCG@20 of each.
    shares : Sequence[float]
    users : int
        Whose means these are.
    """
    behind = (values.max() - values) * np.sqrt(users) / NOISE
    mean = np.average(shares, weights=np.exp(-np.square(behind) / 2))
    return int(np.abs(np.array(shares) - mean).argmin())


def asked_of_some(scoring: Scoring, users: int, settings: RunSettings) -> Scoring:
    """The same, measured on about `ASKED` users where the nodes have more.

    Parameters
    ----------
    scoring : Scoring
    users : int
        Who took part in the last round.
    settings : RunSettings
        They say which share of all users that is.
    """
    nodes = settings.nodes_per_round / settings.nodes if settings.nodes_per_round else 1.0
    everyone = users / (settings.fraction * settings.federated * min(nodes, 1.0))
    if everyone <= ASKED:
        return scoring
    asked = np.array([[ASKED / everyone]], np.float32)
    return replace(scoring, arrays={**scoring.arrays, "asked": asked})
