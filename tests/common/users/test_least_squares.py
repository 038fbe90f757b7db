"""Users' vectors and what they ask of item embeddings, by autograd on the whole objective."""

import numpy as np
import pytest
import torch
from torch import Tensor

from common.settings import TrainingSettings
from common.users import least_squares
from common.users.least_squares import least_squares_round, vectors
from common.users.ragged import Ragged
from tests.common.users.alone import in_numbers
from tests.common.users.test_training import (
    DIM,
    ITEMS,
    ROUND,
    USERS,
    make_interactions,
    make_keys,
    make_table,
)

CONFIDENCE, RIDGE = 3.0, 0.7
TABLE, DATA, KEYS = make_table(), make_interactions(), make_keys()


def plain_loss(user: Tensor, table: Tensor, items: np.ndarray) -> Tensor:
    """The objective of one user, without the items' share of λ."""
    total = RIDGE * (user**2).sum()
    for item in range(len(table)):
        wanted = float(item in items)
        total = total + (1 + CONFIDENCE * wanted) * (wanted - user @ table[item]) ** 2
    return total


def test_vectors_are_where_the_gradient_is_zero() -> None:
    found = vectors(TABLE, DATA, CONFIDENCE, RIDGE)
    assert found.shape == (USERS, DIM)
    for user in range(USERS):
        leaf = found[user].double().requires_grad_()
        loss = plain_loss(leaf, TABLE.double(), DATA.of(user))
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert float(gradient.abs().max()) < 1e-3
        assert float(leaf.detach().abs().max()) > 1e-3


@pytest.mark.parametrize("numbers", [1, 200, least_squares.CHUNK_NUMBERS])
@pytest.mark.parametrize(("bound", "order"), [(0.0, 1), (0.5, 1), (0.5, 2)])
def test_a_round_is_half_the_negative_gradient_of_each_user(
    numbers: int, bound: float, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(least_squares, "CHUNK_NUMBERS", numbers)
    by_server = {"gaussian_scale": 1.0, "noise_by": "server"} if order == 2 else {}
    settings = TrainingSettings(dim=DIM, clip_norm=bound, average="users", **by_server)
    result = in_numbers(least_squares_round(TABLE, DATA, KEYS, ROUND, settings, CONFIDENCE, RIDGE))
    expected, loss = torch.zeros(ITEMS, DIM), 0.0
    for user, own in enumerate(vectors(TABLE, DATA, CONFIDENCE, RIDGE)):
        leaf = TABLE.clone().requires_grad_()
        whole = plain_loss(own, leaf, DATA.of(user))
        (gradient,) = torch.autograd.grad(whole, leaf)
        asked = -gradient / 2
        if bound:
            asked = asked * min(1.0, bound / float(asked.flatten().norm(p=order)))
        expected += asked
        loss += (whole.item() - RIDGE * float((own**2).sum())) / ITEMS
    torch.testing.assert_close(result.change, expected, rtol=1e-3, atol=1e-4)
    assert result.loss_sum == pytest.approx(loss, rel=1e-4)
    assert result.users == USERS
    assert result.touches.tolist() == [USERS] * ITEMS


def test_only_those_that_take_part_are_asked() -> None:
    settings = TrainingSettings(dim=DIM, fraction=0.5, average="users")
    some = least_squares_round(TABLE, DATA, KEYS, ROUND, settings, CONFIDENCE, RIDGE)
    assert 0 < some.users < USERS
    whole = settings.model_copy(update={"fraction": 1.0})
    parts = [
        least_squares_round(
            TABLE, DATA.take(np.array([user])), KEYS[[user]], ROUND, settings, CONFIDENCE, RIDGE
        )
        for user in range(USERS)
    ]
    torch.testing.assert_close(sum(part.change for part in parts), some.change)
    every = least_squares_round(TABLE, DATA, KEYS, ROUND, whole, CONFIDENCE, RIDGE)
    assert every.users == USERS


def test_noise_is_on_every_entry() -> None:
    settings = TrainingSettings(dim=DIM, clip_norm=1e-6, laplace_scale=2.0, average="users")
    noisy = least_squares_round(TABLE, DATA, KEYS, ROUND, settings, CONFIDENCE, RIDGE).change
    assert (noisy != 0).all()
    assert float(noisy.std()) == pytest.approx(2.0 * (2 * USERS) ** 0.5, rel=0.3)


def test_a_user_without_interactions_asks_for_nothing() -> None:
    nobody = Ragged(np.array([0, 0]), np.zeros(0, np.int64))
    assert not vectors(TABLE, nobody, CONFIDENCE, RIDGE).any()
