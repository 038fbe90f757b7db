"""Attacks find members of a generator that copies, and none of one that does not."""

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from client_app.synthesis.attacks import nearer_than_strangers, nearest_synthetic, roc, wilson
from tests.client_app.synthesis.test_similarity import drawn_users

SCORES = [
    (np.random.default_rng(0).normal(0.5, 1, 60), np.random.default_rng(1).normal(0, 1, 40)),
    (np.random.default_rng(2).integers(0, 5, 70) / 4, np.random.default_rng(3).integers(0, 4, 300)),
    (np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.5])),
]


@pytest.mark.parametrize(("members", "others"), SCORES)
def test_the_area_is_that_of_sklearn(members: np.ndarray, others: np.ndarray) -> None:
    labels = np.repeat([1, 0], [len(members), len(others)])
    scores = np.concatenate([members, others])
    told = roc(members, others)
    assert told.auc == pytest.approx(roc_auc_score(labels, scores))
    alarms, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert told.false_alarms == pytest.approx(alarms)
    assert told.hits == pytest.approx(hits)
    assert told.caught == pytest.approx(hits[alarms <= 0.01].max())
    assert (told.members, told.others) == (len(members), len(others))


@pytest.mark.parametrize(("members", "others"), SCORES)
def test_the_interval_is_that_of_delong(members: np.ndarray, others: np.ndarray) -> None:
    """From the placements of every pair, by plain loops."""
    wins = np.array([[(a > b) + (a == b) / 2 for b in others] for a in members])
    variance = wins.mean(1).var(ddof=1) / len(members) + wins.mean(0).var(ddof=1) / len(others)
    half = norm.ppf(0.975) * variance**0.5
    told = roc(members, others)
    assert told.low == pytest.approx(max(0, wins.mean() - half))
    assert told.high == pytest.approx(min(1, wins.mean() + half))


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    truth = norm.cdf(0.4 / 2**0.5)
    held = 0
    for seed in range(400):
        draw = np.random.default_rng(seed)
        told = roc(draw.normal(0.4, 1, 80), draw.normal(0, 1, 50))
        held += told.low <= truth <= told.high
    assert 0.92 <= held / 400 <= 0.98


def test_one_person_on_a_side_tells_nothing() -> None:
    told = roc(np.array([0.4, 0.6]), np.array([0.5]))
    assert (told.auc, told.low, told.high) == (0.5, 0.0, 1.0)


def test_the_interval_of_a_share_is_wilsons() -> None:
    z = norm.ppf(0.975)
    for share, people in ((0.0, 10), (0.3, 50), (1.0, 7)):
        for bound in wilson(share, people):
            if 0 < bound < 1:  # where a test of the bound gives exactly the share
                assert abs(share - bound) == pytest.approx(
                    z * (bound * (1 - bound) / people) ** 0.5
                )
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(1.0, 7)[1] == 1.0


MEMBERS, OTHERS = drawn_users(120, 40, 0.3, 5), drawn_users(80, 40, 0.3, 6)


@pytest.mark.parametrize("measure", ["jaccard", "cosine"])
def test_copies_give_members_away(measure: str) -> None:
    copies = vstack([MEMBERS[:90], drawn_users(60, 40, 0.3, 7)], format="csr")
    told = roc(
        nearest_synthetic(MEMBERS, copies, measure), nearest_synthetic(OTHERS, copies, measure)
    )
    assert told.auc > 0.8
    assert told.low > 0.5
    assert told.caught >= 0.7


def test_users_made_without_looking_give_nobody_away() -> None:
    made = drawn_users(150, 40, 0.3, 8)
    for scores in (
        (nearest_synthetic(MEMBERS, made), nearest_synthetic(OTHERS, made)),
        nearer_than_strangers(MEMBERS, OTHERS, made),
    ):
        told = roc(*scores)
        assert told.low < 0.5 < told.high


def test_strangers_are_measured_against_other_strangers() -> None:
    members, strangers = (
        csr_array(np.array(rows, dtype=bool)) for rows in ([[1, 1, 0]], [[1, 0, 0], [0, 0, 1]])
    )
    made = csr_array(np.array([[1, 1, 0]], dtype=bool))
    own, other = nearer_than_strangers(members, strangers, made)
    assert own.tolist() == [1 - 0.5]
    assert other.tolist() == [0.5 - 0.0, 0.0 - 0.0]
