"""Membership attacks: who holds the synthetic users guesses whether a real user was trained on.

Each attack gives a score to every target, higher for those that it takes for members; `roc` tells
how well the scores part members from people that no training saw.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import norm, rankdata

from client_app.synthesis.similarity import Measure, nearest, profile

FALSE_ALARMS = 0.01
"""Share of non-members that `Roc.caught` allows to be taken for members."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Roc:
    """How well scores part members from others.

    Parameters
    ----------
    auc : float
        Probability that a member has a higher score than another person, ties counted half: 0.5
        for guessing, 1 for certainty.
    low, high : float
        95 % confidence interval of the AUC, over members and others.
    caught : float
        Share of members that are found where at most 1 % of the others are taken for members.
    caught_low, caught_high : float
        95 % Wilson interval of ``caught`` over members; the threshold counts as given.
    members, others : int
    false_alarms, hits : ndarray, float64 (thresholds + 1,)
        The curve: shares of others and of members at or above each threshold, from (0, 0) to
        (1, 1).
    """

    auc: float
    low: float
    high: float
    caught: float
    caught_low: float
    caught_high: float
    members: int
    others: int
    false_alarms: np.ndarray
    hits: np.ndarray


def nearest_synthetic(
    targets: csr_array, synthetic: csr_array, measure: Measure = "jaccard"
) -> np.ndarray:
    """Attack: similarity of each target to the most similar synthetic user.

    A generator that repeats its training users makes some that are closer to them than to anybody
    else (distance to the closest record; Chen et al., GAN-Leaks, arXiv 1909.03935).

    Parameters
    ----------
    targets : csr_array, bool (targets, items)
    synthetic : csr_array, bool (users, items)
    measure : str
        'jaccard' or 'cosine'.

    Returns
    -------
    ndarray, float64 (targets,)
    """
    return nearest(targets, synthetic, measure)


def nearer_than_strangers(
    members: csr_array, strangers: csr_array, synthetic: csr_array
) -> tuple[np.ndarray, np.ndarray]:
    """Attack: similarity to the nearest synthetic user minus that to the nearest stranger.

    The attacker knows other people of the same kind, too. Who is like many people is near to
    some synthetic user whether trained on or not; the difference leaves that out (as DOMIAS
    does with densities; van Breugel et al., arXiv 2302.12580).

    Parameters
    ----------
    members, strangers : csr_array, bool (targets, items)
        Users that were trained on, and users that were not.
    synthetic : csr_array, bool (users, items)

    Returns
    -------
    tuple of ndarray, float64 (members,) and (strangers,)
    """
    return (
        nearest(members, synthetic) - nearest(members, strangers),
        nearest(strangers, synthetic) - profile(strangers, strangers, others=True).nearest,
    )


def roc(members: np.ndarray, others: np.ndarray) -> Roc:
    """The curve of an attack's scores, its area and their uncertainty.

    The interval is DeLong's (DeLong, DeLong and Clarke-Pearson, Biometrics 1988), computed from
    mid-ranks (Sun and Xu, IEEE Signal Processing Letters 2014).

    Parameters
    ----------
    members, others : ndarray, float64 (n,), (m,)
        Scores, at least one on each side.
    """
    n, m = len(members), len(others)
    both = rankdata(np.concatenate([members, others]))
    above_others = (both[:n] - rankdata(members)) / m  # of each member, ties counted half
    below_members = 1 - (both[n:] - rankdata(others)) / n
    auc = float(above_others.mean())
    variance = _variance(above_others) / n + _variance(below_members) / m
    half = float(norm.ppf((1 + _CONFIDENCE) / 2) * np.sqrt(variance))
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    hits, false_alarms = (
        np.concatenate([[0.0], 1 - np.searchsorted(np.sort(s), thresholds) / len(s)])
        for s in (members, others)
    )
    caught = float(hits[false_alarms <= FALSE_ALARMS].max())
    low, high = wilson(caught, n)
    return Roc(
        auc=auc,
        low=max(0.0, auc - half),
        high=min(1.0, auc + half),
        caught=caught,
        caught_low=low,
        caught_high=high,
        members=n,
        others=m,
        false_alarms=false_alarms,
        hits=hits,
    )


def wilson(share: float, people: int) -> tuple[float, float]:
    """95 % interval of a share of ``people`` (Wilson, JASA 1927)."""
    z = norm.ppf((1 + _CONFIDENCE) / 2)
    middle = (share + z * z / (2 * people)) / (1 + z * z / people)
    half = (
        z * np.sqrt(share * (1 - share) / people + (z / (2 * people)) ** 2) / (1 + z * z / people)
    )
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _variance(values: np.ndarray) -> float:
    """Unbiased variance; one person tells nothing of it, and it is infinite."""
    return float(values.var(ddof=1)) if len(values) > 1 else float("inf")
