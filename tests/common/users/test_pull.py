"""The pull against a copy of the whole item table for each user.

`tests/common/users/test_training.py` compares whole rounds with it.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from common.discrete import STEP
from common.settings import TrainingSettings
from common.users.mechanism import ClippedGaussian, ClippedLaplace
from common.users.pull import MappedPull
from common.users.training import Samples

WARM, DIM, USERS, WIDTH = 9, 3, 4, 5
RNG = np.random.default_rng(3)


def table(seed: int) -> Tensor:
    return torch.randn(WARM, DIM, generator=torch.Generator().manual_seed(seed))


TABLE, MAPPED = table(1), table(2)
REAL = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).float()
ITEMS = torch.stack([torch.from_numpy(RNG.permutation(WARM)[:WIDTH]) for _ in range(USERS)])
SAMPLES = Samples(
    items=torch.where(REAL > 0, ITEMS, 0),
    labels=REAL,
    real=REAL,
    shuffle=np.zeros(USERS, np.uint64),
)
BATCHES = torch.tensor([3.0, 1.0, 2.0, 1.0])
STRENGTH = 0.8


def own_rows(user: int) -> list[int]:
    return [int(item) for item, real in zip(ITEMS[user], REAL[user], strict=True) if real]


def pulled(user: int, average: str, rate: float) -> Tensor:
    """E_u after its batches, by autograd on λ · MSE(E_u, E_mapped)."""
    own = TABLE.clone()
    counted = own_rows(user) if average == "touches" else list(range(WARM))
    for _ in range(int(BATCHES[user])):
        leaf = own.clone().requires_grad_()
        loss = STRENGTH * torch.nn.functional.mse_loss(leaf[counted], MAPPED[counted])
        (gradient,) = torch.autograd.grad(loss, leaf)
        own = own - rate * gradient
    return own


@pytest.mark.parametrize("average", ["users", "touches"])
@pytest.mark.parametrize("per_item", [False, True])
def test_the_pull_in_a_plain_loop(average: str, per_item: bool) -> None:
    settings = TrainingSettings(
        dim=DIM, item_lr=0.4, item_lr_per_item=per_item, average=average, method="ipfedrec"
    )
    rate = 0.4 * (WARM if per_item else 1)
    pull = MappedPull(TABLE, MAPPED, STRENGTH, settings)
    rows = TABLE[SAMPLES.items]
    for batch in range(3):
        active = (batch < BATCHES).float()
        rows = rows + pull.step(rows, SAMPLES, active)
    kept = torch.tensor([1.0, 0.5, 0.25, 1.0])
    pull.note(SAMPLES, BATCHES, kept, ClippedLaplace(1.0, 0.0))
    whole = MappedPull(TABLE, MAPPED, STRENGTH, settings)
    whole.note(SAMPLES, BATCHES, kept, ClippedGaussian(1.0, 0.0))
    elsewhere, everywhere = pull.elsewhere(SAMPLES, BATCHES), torch.zeros(WARM, DIM)
    squares = pull.elsewhere(SAMPLES, BATCHES, order=2)
    for user in range(USERS):
        expected, own = pulled(user, average, rate), own_rows(user)
        torch.testing.assert_close(rows[user][: len(own)], expected[own])
        rest = [item for item in range(WARM) if item not in own]
        change = expected - TABLE
        torch.testing.assert_close(elsewhere[user], change[rest].abs().sum())
        torch.testing.assert_close(squares[user].float(), change[rest].square().sum())
        everywhere[rest] += kept[user] * change[rest]
    torch.testing.assert_close(pull.change(), everywhere)
    steps = whole.change()
    assert steps.dtype == torch.int64
    torch.testing.assert_close((steps * STEP).float(), everywhere)
    assert everywhere.any() == (average == "users")
