"""The softmax table's node half: scores against dense algebra, and what is refused."""

from typing import Any

import numpy as np
import pytest

from client_app.methods.softmax_table import HistoryAndTable, SoftmaxTable
from client_app.scorers import standardised
from common.errors import SnowdropError
from common.settings import RunSettings
from common.users.mechanism import Unchanged
from common.users.softmax import softmax_sums
from tests.client_app.methods.test_one_round import (
    HISTORIES,
    USERS,
    WARM,
    arrays,
    dense_weights,
    local_of,
    request,
)

DIM = 4
TABLE = np.random.default_rng(5).normal(size=(WARM, DIM)).astype(np.float32)
SENT = {"table": TABLE, "log_scale": np.array([[1.2]], np.float32)}
OWN = {"method": "softmax-table", "dim": DIM, "fraction": 1.0}


def test_every_share_scores_as_dense_algebra_does() -> None:
    made = arrays(table=TABLE)
    forms = list(HistoryAndTable(local_of(made, **OWN)).forms(USERS))
    x = np.zeros((len(USERS), WARM), np.float32)
    for user in USERS:
        x[user, HISTORIES.of(user)] = 1
    weights = dense_weights(made)
    history = standardised(torch_of(x @ weights.T))
    means = x / np.maximum(x.sum(1, keepdims=True), 1)
    learnt = standardised(torch_of(means @ TABLE @ (weights @ TABLE).T))
    assert len(forms) == 3
    for share, form in zip(made["shares"][0], forms, strict=True):
        expected = (1 - share) * history + share * learnt
        np.testing.assert_allclose(form.numpy(), expected.numpy(), atol=2e-4)


def torch_of(numbers: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(numbers.astype(np.float32))


def test_a_node_answers_with_the_sums_over_its_users() -> None:
    local = local_of(SENT, **OWN)
    state, answer = SoftmaxTable("softmax-table").train(request(scale=4.0), local)
    found = softmax_sums(
        torch_of(TABLE), float(np.float32(1.2)), HISTORIES, local.keys, 1, Unchanged()
    )
    assert (state, answer.users, set(answer.sums)) == ({}, 4, {"change", "scorer"})
    assert answer.loss_sum == pytest.approx(found.loss)
    assert answer.sums["change"].dtype == answer.sums["scorer"].dtype == np.float32
    np.testing.assert_allclose(answer.sums["change"] * 4, found.change, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(answer.sums["scorer"] * 4, found.log_scale, rtol=1e-5)


def test_users_who_are_not_drawn_are_in_no_sum() -> None:
    local = local_of(SENT, **{**OWN, "fraction": 0.5})
    asked = [SoftmaxTable("softmax-table").train(request(round=k), local)[1] for k in range(1, 9)]
    assert {answer.users for answer in asked} != {4}
    assert all(answer.users or not answer.sums["change"].any() for answer in asked)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"log_scale": np.array([[11.0]], np.float32)}, "'log_scale' must lie between"),
        ({"table": TABLE[:, :2]}, "'table' has shape"),
    ],
)
def test_a_malformed_message_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        SoftmaxTable("softmax-table").train(request(), local_of({**SENT, **changed}, **OWN))


def test_the_noise_that_settings_ask_for_is_carried() -> None:
    assert SoftmaxTable("softmax-table").noised
    noisy = {"clip_norm": 1.0, "gaussian_scale": 2.0, "noise_by": "server"}
    local = local_of(SENT, **OWN, **noisy)
    _, answer = SoftmaxTable("softmax-table").train(request(scale=4.0), local)
    assert answer.sums["change"].dtype == answer.sums["scorer"].dtype == np.int64
    assert RunSettings.parse({**OWN, **noisy}).whole_sums
