"""The pull against a copy of the whole item table for each user.

`tests/common/users/test_training.py` compares whole rounds with it.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app.methods import half_of
from client_app.methods.base import Local
from client_app.methods.ipfedrec import IFedRecPull, IPFedRec
from common.errors import SnowdropError
from common.settings import RunSettings, TrainingSettings
from common.users.heads import HEADS
from common.users.ragged import Ragged
from common.users.randomness import user_keys
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
    pull = IFedRecPull(TABLE, MAPPED, STRENGTH, settings)
    rows = TABLE[SAMPLES.items]
    for batch in range(3):
        active = (batch < BATCHES).float()
        rows = rows + pull.step(rows, SAMPLES, active)
    kept = torch.tensor([1.0, 0.5, 0.25, 1.0])
    pull.note(SAMPLES, BATCHES, kept)
    elsewhere, everywhere = pull.elsewhere(SAMPLES, BATCHES), torch.zeros(WARM, DIM)
    for user in range(USERS):
        expected, own = pulled(user, average, rate), own_rows(user)
        torch.testing.assert_close(rows[user][: len(own)], expected[own])
        rest = [item for item in range(WARM) if item not in own]
        change = expected - TABLE
        torch.testing.assert_close(elsewhere[user], change[rest].abs().sum())
        everywhere[rest] += kept[user] * change[rest]
    torch.testing.assert_close(pull.change(), everywhere)
    assert everywhere.any() == (average == "users")


def local(
    arrays: dict[str, np.ndarray], method: str = "ipfedrec", **values: Any
) -> tuple[Tensor, Local]:
    run = RunSettings.parse({"method": method, "dim": DIM, **values})
    keys = user_keys(b"s", ["ann"])
    settings = run.training()
    histories = Ragged(np.array([0, 2]), np.array([1, 4]))
    fresh = HEADS[settings.head].fresh(keys, settings)
    return TABLE, Local(settings, histories, keys, arrays, WARM, 0, lambda: fresh)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("ipfedrec", {"ipfedrec.pull": 2.0}),
        ("ifedncf", {"ifedncf.pull": 2.0}),
        ("mixture", {"mixture.first": "ipfedrec", "ipfedrec.pull": 2.0}),
    ],
)
def test_a_method_with_a_pull_takes_its_own_strength(method: str, values: dict[str, Any]) -> None:
    own = local({"mapped": MAPPED.numpy()}, method, **values)
    pull = half_of(method).pull(*own)
    assert isinstance(pull, IFedRecPull)
    expected = IFedRecPull(TABLE, MAPPED, 2.0, own[1].settings)
    rows = TABLE[SAMPLES.items]
    one, other = (each.step(rows, SAMPLES, BATCHES) for each in (pull, expected))
    assert torch.equal(one, other)
    assert one.any()


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("ipfedrec", {"ipfedrec.pull": 0}),
        ("ridge", {}),
        ("mixture", {}),
        ("mixture", {"mixture.first": "ridge", "mixture.second": "ipfedrec", "ipfedrec.pull": 2}),
    ],
)
def test_what_has_no_pull(method: str, values: dict[str, Any]) -> None:
    own = local({"mapped": MAPPED.numpy()}, method, **values)
    assert half_of(method).pull(*own) is None


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "^train with a pull carries no mapped embeddings"),
        ({"mapped": MAPPED.numpy()[1:]}, r"'mapped' has shape \(8, 3\), expected \(9, 3\)"),
    ],
)
def test_a_pull_needs_what_the_server_maps(arrays: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        IPFedRec("ipfedrec").pull(*local(arrays))
