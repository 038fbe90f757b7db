"""How validation items choose the share of what a federation has learnt in a score."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.settings import RunSettings
from server_app.methods.base import Scoring

NOISE = 0.2
"""Deviation over users of the difference in Recall@20 + NDCG@20 between a share and the next ones,
or between two kernels and one, measured on validation users of amazon-office and movielens."""

ASKED = 10_000
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


def likely_form(
    values: Sequence[np.ndarray], shares: Sequence[float], users: int
) -> tuple[int, int, int]:
    """The places of the carrier, the λ and the share that are likely to be the best.

    Of each carrier the share is that of `likely_share`, and λ is the best one for that share. A
    later carrier is taken where it is ahead of those before by more than one standard error.

    Parameters
    ----------
    values : Sequence[ndarray]
        Recall@20 + NDCG@20, float64 (λ, shares) of each carrier.
    shares : Sequence[float]
    users : int
        Whose means these are.
    """
    best, least = (0, 0, 0), -np.inf
    for carrier, of_carrier in enumerate(values):
        column = likely_share(of_carrier.max(0), shares, users)
        row = int(of_carrier[:, column].argmax())
        if of_carrier[row, column] > least:
            best = carrier, row, column
            least = of_carrier[row, column] + NOISE / np.sqrt(users)
    return best


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
    everyone = users / (settings.share_of_a_round * settings.federated)
    if everyone <= ASKED:
        return scoring
    asked = np.array([[ASKED / everyone]], np.float32)
    return replace(scoring, arrays={**scoring.arrays, "asked": asked})
