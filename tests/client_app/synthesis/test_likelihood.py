"""The likelihood attack finds users whom synthetic ones are made from."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from client_app.synthesis.attacks import roc
from client_app.synthesis.likelihood import BATCH, _mean, likelihoods
from client_app.synthesis.multivae import MultiVAE
from client_app.synthesis.rows import Rows
from tests.client_app.synthesis.test_similarity import drawn_users

USERS = drawn_users(BATCH + 30, 25, 0.3, 0)


def with_items(likes: csr_array) -> csr_array:
    return likes[np.flatnonzero(np.diff(likes.indptr))]


def test_a_users_likelihood_is_the_mean_over_its_items() -> None:
    torch.manual_seed(0)
    network = MultiVAE(25, 8, 4, 0.5).eval()
    rows = USERS[:7]
    with torch.no_grad():
        shares = network.decode(network.encode(Rows.of(rows))[0]).log_softmax(1).numpy()
        told = _mean(network, Rows.of(rows)).numpy()
    expected = [shares[u, rows[[u]].indices].mean() for u in range(7)]
    assert told == pytest.approx(expected, rel=1e-5)


def test_members_of_groups_that_synthetic_users_are_like_are_likelier() -> None:
    """Synthetic users have the first half of the items, and so have the members."""
    draw = np.random.default_rng(1)

    def half(users: int, first: int) -> csr_array:
        likes = np.zeros((users, 20), dtype=bool)
        likes[:, first : first + 10] = draw.random((users, 10)) < 0.5
        return with_items(csr_array(likes))

    members, others = half(BATCH + 20, 0), half(60, 10)
    told = roc(*likelihoods((members, others), half(300, 0), seed=0))
    assert (told.members, told.others) == (members.shape[0], others.shape[0])
    assert told.auc > 0.99


def test_the_seed_makes_the_numbers() -> None:
    users = with_items(USERS)
    first, again, other = (likelihoods((users,), users, seed)[0] for seed in (3, 3, 4))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
