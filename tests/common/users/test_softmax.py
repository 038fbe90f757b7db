"""A round of the softmax: against autograd and a loop over users, and what bounds a user."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from common.discrete import STEP
from common.settings import TrainingSettings
from common.users import softmax
from common.users.mechanism import Unchanged, mechanism_of
from common.users.ragged import Ragged
from common.users.randomness import user_keys
from common.users.softmax import SoftmaxSums, sampled_rows, softmax_sums, split_off_targets

WARM, DIM, USERS, LOG_SCALE, ROUND = 30, 6, 25, 1.3, 4
KEYS = user_keys(b"secret", [str(user) for user in range(USERS)])
TABLE = torch.randn(WARM, DIM, generator=torch.Generator().manual_seed(0))


def histories() -> Ragged:
    """Users with 0 to 12 items, and one who has all."""
    rng = np.random.default_rng(1)
    counts = [0, 1, 2, WARM, *rng.integers(2, 13, USERS - 4)]
    items = [np.sort(rng.choice(WARM, count, replace=False)) for count in counts]
    return Ragged(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(items))


HISTORIES = histories()
LISTS = HISTORIES.take(np.flatnonzero(HISTORIES.counts >= 2))
LISTS_KEYS = KEYS[HISTORIES.counts >= 2]


def sums(mechanism: Any = None, sampled: np.ndarray | None = None, **given: Any) -> SoftmaxSums:
    told: dict[str, Any] = {"histories": HISTORIES, "keys": KEYS, **given}
    return softmax_sums(
        TABLE, LOG_SCALE, told["histories"], told["keys"], ROUND, mechanism or Unchanged(), sampled
    )


def by_autograd(user: int, sampled: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Minus one user's gradients by autograd in float64, and its loss; the formulas as they are."""
    chosen = split_off_targets(HISTORIES.take(np.array([user])), KEYS[[user]], ROUND)
    own = HISTORIES.of(user)
    context, targets = own[~chosen], own[chosen]
    table = TABLE.double().requires_grad_()
    log_scale = torch.tensor(LOG_SCALE, dtype=torch.float64, requires_grad=True)
    scores = log_scale.exp() * normalize(table[context].mean(0), dim=0) @ table.T
    drawn = np.arange(WARM) if sampled is None else sampled
    others = [item for item in drawn if item not in own]
    among = torch.cat([scores[targets], scores[others] + np.log(WARM / len(drawn))])
    loss = (among.logsumexp(0) - scores[targets]).sum() / len(targets) ** 0.5
    loss.backward()
    assert table.grad is not None and log_scale.grad is not None
    return -table.grad, -log_scale.grad, loss.item()


def changed(**settings: Any) -> Any:
    return mechanism_of(TrainingSettings(average="users", **settings))


@pytest.mark.parametrize("sampled", [None, np.arange(3, WARM, 4)])
@pytest.mark.parametrize("numbers", [1, 100, softmax.CHUNK_NUMBERS])
def test_sums_are_those_of_a_loop_over_users(
    monkeypatch: pytest.MonkeyPatch, sampled: np.ndarray | None, numbers: int
) -> None:
    monkeypatch.setattr(softmax, "CHUNK_NUMBERS", numbers)
    parts = [by_autograd(u, sampled) for u in range(USERS) if HISTORIES.counts[u] >= 2]
    found = sums(sampled=sampled)
    torch.testing.assert_close(found.change, sum(one[0] for one in parts), atol=2e-5, rtol=1e-4)
    assert float(found.log_scale) == pytest.approx(float(sum(one[1] for one in parts)), abs=1e-4)
    assert found.loss == pytest.approx(sum(one[2] for one in parts), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "order"),
    [({"clip_norm": 0.5}, 1), ({"clip_norm": 0.2, "gaussian_scale": 1.0, "noise_by": "server"}, 2)],
)
def test_each_user_is_clipped_to_the_norm_of_all_that_it_sends(
    settings: dict[str, Any], order: int
) -> None:
    expected = torch.zeros(WARM, DIM, dtype=torch.float64)
    shares = []
    for user in np.flatnonzero(HISTORIES.counts >= 2):
        change, scale, _ = by_autograd(int(user), None)
        whole = torch.cat([change.flatten(), scale[None]])
        shares.append(min(1.0, settings["clip_norm"] / float(whole.norm(p=order))))
        expected += shares[-1] * change
    assert min(shares) < 1
    found = sums(changed(**settings)).change.double()
    if order == 2:
        found *= STEP
    torch.testing.assert_close(found, expected, atol=2e-3 if order == 2 else 1e-5, rtol=1e-3)


def test_with_noise_a_users_whole_steps_are_never_longer_than_the_bound() -> None:
    """And they are the same whoever else is there."""
    mechanism = changed(clip_norm=0.1, gaussian_scale=1.0, noise_by="server")
    total = torch.zeros(WARM, DIM, dtype=torch.int64)
    for user in range(USERS):
        alone = sums(mechanism, histories=HISTORIES.take(np.array([user])), keys=KEYS[[user]])
        assert alone.change.dtype == alone.log_scale.dtype == torch.int64
        steps = [int(one) for one in [*alone.change.flatten(), alone.log_scale[0, 0]]]
        length = sum(one**2 for one in steps) ** 0.5 * STEP
        assert length <= 0.1
        if HISTORIES.counts[user] >= 2:
            assert length > 0.09
        total += alone.change
    assert torch.equal(total, sums(mechanism).change)


def test_products_are_exact_where_many_large_ones_are_added_up() -> None:
    mechanism = changed(clip_norm=2.0**20, gaussian_scale=1.0, noise_by="server")
    left = torch.full((40, 2), 2.0**19)
    left[1, 1] = 2.0**-18 * (1 + 2.0**-20)
    right = torch.ones(40, 1)
    right[1] = 2.0**-12 * (1 + 2.0**-20)
    found = mechanism.products(left, right, torch.ones(40))
    one = int(2.0**19 * (1 - 2.0**-26) * 2**18) * int((1 - 2.0**-26) * 2**12)
    assert found[1, 0] == 39 * one + 1


def test_nodes_noise_is_on_every_number() -> None:
    mechanism = changed(clip_norm=0.1, gaussian_scale=50.0, noise_by="nodes")
    noise = (sums(mechanism).change * STEP).double()
    assert 0.7 < float(noise.std()) / (50 * USERS**0.5) < 1.4
    assert int(sums(mechanism).log_scale) != int(sums(mechanism).log_scale)


def test_sums_do_not_depend_on_how_users_share_nodes() -> None:
    whole = sums()
    rng = np.random.default_rng(3)
    parts = [
        sums(histories=HISTORIES.take(some), keys=KEYS[some])
        for some in np.array_split(rng.permutation(USERS), 4)
    ]
    torch.testing.assert_close(sum(p.change for p in parts), whole.change, atol=1e-5, rtol=1e-5)
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss)


def test_targets_are_a_random_part_of_each_history_and_new_in_each_round() -> None:
    many = Ragged(np.arange(2001) * 10, np.tile(np.arange(10), 2000))
    keys = user_keys(b"s", [str(k) for k in range(2000)])
    first, second = (split_off_targets(many, keys, k).reshape(-1, 10) for k in (1, 2))
    assert set(first.sum(1)) == set(range(2, 9))
    assert np.abs(first.mean(0) - 0.5).max() < 0.05
    assert (first != second).any(1).mean() > 0.9
    counts = np.add.reduceat(
        split_off_targets(LISTS, LISTS_KEYS, 1).astype(int), LISTS.offsets[:-1]
    )
    assert ((counts >= 1) & (counts < LISTS.counts)).all()


def test_an_item_without_a_direction_moves_nothing_of_its_own() -> None:
    flat = softmax_sums(torch.zeros(WARM, DIM), LOG_SCALE, HISTORIES, KEYS, ROUND, Unchanged())
    assert not flat.change.any()
    assert np.isfinite(flat.loss)


def test_rows_are_drawn_alike_for_all_and_anew_in_each_round() -> None:
    settings = TrainingSettings(seed=3)
    assert sampled_rows(WARM, 0, settings, 1) is None
    assert sampled_rows(WARM, WARM, settings, 1) is None
    drawn = [sampled_rows(WARM, 7, settings, number) for number in (1, 1, 2)]
    assert drawn[0] is not None and drawn[1] is not None and drawn[2] is not None
    assert len(set(drawn[0])) == 7
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert set(drawn[0]) != set(drawn[2])
