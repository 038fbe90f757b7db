"""`train_round` against one user at a time, each with a full copy of the item table."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from common.settings import TrainingSettings
from common.users import training
from common.users.heads import HEADS, State
from common.users.pull import MappedPull
from common.users.ragged import Ragged
from common.users.randomness import stream, uniform, user_keys
from common.users.training import RoundResult, batch_order, draw_samples, train_round
from tests.common.users.alone import in_numbers, plain_scores

ITEMS, DIM, USERS, ROUND = 30, 4, 14, 3
BASE: dict[str, Any] = {
    "dim": DIM,
    "head_start": "random",
    "head_lr": 0.7,
    "item_lr": 0.4,
    "negatives": 2,
}


def make_table() -> Tensor:
    return torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(1))


def make_mapped() -> Tensor:
    return torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(5))


def make_interactions() -> Ragged:
    """One user has one item, one has all of them, the others a few."""
    rng = np.random.default_rng(2)
    counts = [1, ITEMS, *rng.integers(1, 9, USERS - 2)]
    lists = [np.sort(rng.choice(ITEMS, count, replace=False)) for count in counts]
    return Ragged(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.concatenate(lists))


def make_keys() -> np.ndarray:
    return user_keys(b"secret", [f"user {k}" for k in range(USERS)])


def train_alone(
    table: Tensor,
    state: State,
    items: np.ndarray,
    key: np.ndarray,
    settings: TrainingSettings,
    mapped: Tensor,
    strength: float,
) -> tuple[State, Tensor, Tensor, float]:
    """One user's round: its state, its E_u − E, the rows it touched, and its mean loss."""
    alone = Ragged(np.array([0, len(items)]), items)
    samples = draw_samples(alone, key, ROUND, settings.negatives, len(table))
    rows, labels = samples.items[0], samples.labels[0]
    item_lr = settings.item_lr * (len(table) if settings.item_lr_per_item else 1)
    own, losses = table.clone(), []
    for epoch in range(settings.local_epochs):
        order = batch_order(samples, epoch)[0]
        for batch in order.split(settings.batch_size or len(order)):
            leaves = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
            scores = plain_scores(settings.head, leaves, own[rows[batch]])
            loss = binary_cross_entropy_with_logits(scores, labels[batch])
            loss.backward()
            losses.append(loss.item())
            state = {
                name: (leaf - settings.head_lr * leaf.grad).detach()
                for name, leaf in leaves.items()
                if leaf.grad is not None
            }
            leaf = own.clone().requires_grad_()
            scores = plain_scores(settings.head, state, leaf[rows[batch]])
            loss = binary_cross_entropy_with_logits(scores, labels[batch])
            if strength:
                counted = slice(None) if settings.average == "users" else rows
                loss = loss + strength * mse_loss(leaf[counted], mapped[counted])
            loss.backward()
            assert leaf.grad is not None
            own = own - item_lr * leaf.grad
    change = own - table
    if settings.clip_norm:
        length = change.norm() if settings.gaussian_scale else change.abs().sum()
        change = change * min(1.0, settings.clip_norm / float(length))
    return state, change, torch.bincount(rows, minlength=len(table)), float(np.mean(losses))


def train_one_after_another(
    table: Tensor,
    state: State,
    data: Ragged,
    keys: np.ndarray,
    settings: TrainingSettings,
    strength: float = 0.0,
) -> tuple[State, RoundResult]:
    new_state = {name: tensor.clone() for name, tensor in state.items()}
    change, touches = torch.zeros_like(table), torch.zeros(len(table), dtype=torch.int64)
    loss_sum, users = 0.0, 0
    for user in range(len(keys)):
        key = keys[user : user + 1]
        if uniform(stream(key, "participation", ROUND), 1)[0, 0] >= settings.fraction:
            continue
        own = {name: tensor[user] for name, tensor in state.items()}
        own, moved, touched, loss = train_alone(
            table, own, data.of(user), key, settings, make_mapped(), strength
        )
        for name, tensor in own.items():
            new_state[name][user] = tensor
        change, touches = change + moved, touches + touched
        loss_sum, users = loss_sum + loss, users + 1
    return new_state, RoundResult(change, touches, loss_sum, users)


def assert_same(
    one: tuple[State, RoundResult], other: tuple[State, RoundResult], tolerance: float = 1e-5
) -> None:
    assert one[1].users == other[1].users
    assert torch.equal(one[1].touches, other[1].touches)
    assert one[1].loss_sum == pytest.approx(other[1].loss_sum, rel=tolerance)
    torch.testing.assert_close(one[1].change, other[1].change, rtol=tolerance, atol=tolerance)
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        torch.testing.assert_close(tensor, other[0][name], rtol=tolerance, atol=tolerance)


def trained(
    table: Tensor,
    state: State,
    data: Ragged,
    keys: np.ndarray,
    number: int,
    settings: TrainingSettings,
    strength: float = 0.0,
) -> tuple[State, RoundResult]:
    pull = MappedPull(table, make_mapped(), strength, settings) if strength else None
    after, result = train_round(table, state, data, keys, number, settings, pull)
    return after, in_numbers(result)


def settings_of(variant: dict[str, Any]) -> tuple[TrainingSettings, float]:
    """Settings of nodes, and the strength of the pull."""
    shared = {name: value for name, value in variant.items() if name != "pull"}
    return TrainingSettings(**{**BASE, **shared}), variant.get("pull", 0.0)


def start(settings: TrainingSettings) -> tuple[Tensor, State, Ragged, np.ndarray]:
    keys = make_keys()
    return make_table(), HEADS[settings.head].fresh(keys, settings), make_interactions(), keys


BY_SERVER = {"average": "users", "gaussian_scale": 1.0, "noise_by": "server"}
"""An L2 bound, and no noise of the node."""

VARIANTS = [
    pytest.param({}, id="full-batch"),
    pytest.param({"batch_size": 4}, id="batches"),
    pytest.param({"batch_size": 1}, id="batches-of-one"),
    pytest.param({"local_epochs": 3}, id="epochs"),
    pytest.param({"local_epochs": 3, "batch_size": 4}, id="epochs-batches"),
    pytest.param({"item_lr_per_item": True, "item_lr": 0.02}, id="item_lr_per_item"),
    pytest.param({"fraction": 0.5}, id="fraction"),
    pytest.param({"clip_norm": 0.3}, id="clip"),
    pytest.param({"fraction": 0.5, "clip_norm": 0.3, "batch_size": 5}, id="together"),
    pytest.param({"negatives": 40}, id="all-negatives"),
    pytest.param({"pull": 5.0}, id="pull"),
    pytest.param({"pull": 5.0, "average": "users"}, id="pull-everywhere"),
    pytest.param(
        {"pull": 5.0, "average": "users", "local_epochs": 2, "batch_size": 4, "fraction": 0.5},
        id="pull-everywhere-batches",
    ),
    pytest.param({"pull": 5.0, "batch_size": 4, "clip_norm": 0.3}, id="pull-clip"),
    pytest.param(
        {"pull": 90.0, "average": "users", "batch_size": 4, "clip_norm": 2.0},
        id="pull-everywhere-clip",
    ),
    pytest.param({**BY_SERVER, "clip_norm": 0.03, "batch_size": 5}, id="clip-l2"),
    pytest.param(
        {**BY_SERVER, "pull": 90.0, "batch_size": 4, "clip_norm": 0.5},
        id="pull-everywhere-clip-l2",
    ),
    pytest.param(
        {"pull": 9.0, "average": "users", "item_lr_per_item": True, "item_lr": 0.3},
        id="pull-overshoots",
    ),
]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_round_equals_one_user_at_a_time(head: str, variant: dict[str, Any]) -> None:
    settings, strength = settings_of({"head": head, **variant})
    table, state, data, keys = start(settings)
    result = trained(table, state, data, keys, ROUND, settings, strength)
    expected = train_one_after_another(table, state, data, keys, settings, strength)
    assert_same(result, expected)
    assert result[1].change.abs().max() > 1e-3
    assert 0 < result[1].users <= (USERS if settings.fraction == 1 else USERS - 1)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("numbers", [1, 300])
def test_chunks_change_nothing(
    head: str, variant: dict[str, Any], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, strength = settings_of({"head": head, **variant})
    table, state, data, keys = start(settings)
    whole = trained(table, state, data, keys, ROUND, settings, strength)
    monkeypatch.setattr(training, "CHUNK_NUMBERS", numbers)
    assert_same(trained(table, state, data, keys, ROUND, settings, strength), whole)


@pytest.mark.parametrize("variant", VARIANTS)
def test_shards_sum_to_the_whole(variant: dict[str, Any]) -> None:
    settings, strength = settings_of(variant)
    table, state, data, keys = start(settings)
    whole_state, whole = trained(table, state, data, keys, ROUND, settings, strength)
    change, touches = torch.zeros_like(table), torch.zeros(ITEMS, dtype=torch.int64)
    joined = {name: tensor.clone() for name, tensor in state.items()}
    loss_sum, users = 0.0, 0
    for shard in range(3):
        mine = np.arange(USERS)[np.arange(USERS) * 7 % 3 == shard]
        own = {name: tensor[mine] for name, tensor in state.items()}
        own, part = trained(table, own, data.take(mine), keys[mine], ROUND, settings, strength)
        change, touches = change + part.change, touches + part.touches
        loss_sum, users = loss_sum + part.loss_sum, users + part.users
        for name, tensor in own.items():
            joined[name][mine] = tensor
    assert_same((joined, RoundResult(change, touches, loss_sum, users)), (whole_state, whole))


def test_the_linear_heads_gradient_on_paper() -> None:
    """Full batch from zeros: σ(0) = ½, w = −η mean((½ − y) e), e_i −= η_e (σ(s_i) − y_i) w / n."""
    settings = TrainingSettings(dim=DIM, head_start="zero", head_lr=2.0, item_lr=3.0, negatives=2)
    table, keys = make_table(), user_keys(b"secret", ["ann"])
    data = Ragged(np.array([0, 3]), np.array([4, 9, 20]))
    samples = draw_samples(data, keys, ROUND, 2, ITEMS)
    rows, labels = table[samples.items[0]], samples.labels[0]
    assert labels.tolist() == [1] * 3 + [0] * 6
    weight = -2.0 * ((0.5 - labels)[:, None] * rows).mean(0)
    bias = -2.0 * (0.5 - labels).mean()
    residual = torch.sigmoid(rows @ weight + bias) - labels
    expected = torch.zeros_like(table)
    expected[samples.items[0]] = -3.0 * residual[:, None] * weight / 9

    zeros = HEADS["linear"].fresh(keys, settings)
    state, result = train_round(table, zeros, data, keys, ROUND, settings)
    torch.testing.assert_close(state["weight"][0], weight)
    torch.testing.assert_close(state["bias"][0], bias[None])
    torch.testing.assert_close(result.change, expected)
    assert result.loss_sum == pytest.approx(np.log(2))


def test_nothing_that_is_handed_in_changes() -> None:
    settings = TrainingSettings(**BASE, batch_size=3, local_epochs=2)
    table, state, data, keys = start(settings)
    before, heads = table.clone(), {name: tensor.clone() for name, tensor in state.items()}
    trained(table, state, data, keys, ROUND, settings)
    assert torch.equal(table, before)
    assert all(torch.equal(state[name], heads[name]) for name in heads)


def test_rounds_draw_other_negatives() -> None:
    settings = TrainingSettings(**BASE)
    table, state, data, keys = start(settings)
    first = trained(table, state, data, keys, 1, settings)[1]
    assert torch.equal(first.change, trained(table, state, data, keys, 1, settings)[1].change)
    assert not torch.equal(first.touches, trained(table, state, data, keys, 2, settings)[1].touches)


def test_a_node_without_users_answers_zeros() -> None:
    settings = TrainingSettings(**BASE, clip_norm=1.0, laplace_scale=1.0, average="users")
    nobody = np.array([], dtype=np.uint64)
    data = Ragged(np.array([0]), np.array([], dtype=np.int64))
    state = HEADS["linear"].fresh(nobody, settings)
    _, result = train_round(make_table(), state, data, nobody, ROUND, settings)
    assert (result.users, result.loss_sum) == (0, 0.0)
    assert not result.change.any()


def test_noise_is_added_to_every_entry_also_of_rows_that_nobody_touched() -> None:
    """A row without noise would tell the server that no user of the node has it."""
    settings = TrainingSettings(**BASE, clip_norm=0.1, laplace_scale=1.0, average="users")
    quiet = TrainingSettings(**BASE, clip_norm=0.1, average="users")
    table, state, everybody, everyones_keys = start(settings)
    few = np.array([0, 5])
    data, keys = everybody.take(few), everyones_keys[few]
    state = {name: tensor[few] for name, tensor in state.items()}
    without = trained(table, state, data, keys, ROUND, quiet)[1]
    untouched = without.touches == 0
    assert 5 < int(untouched.sum()) < ITEMS
    assert not without.change[untouched].any()
    noisy = trained(table, state, data, keys, ROUND, settings)[1]
    assert (noisy.change[untouched] != 0).all()
    assert ((noisy.change - without.change) != 0).all()
    again = trained(table, state, data, keys, ROUND, settings)[1]
    assert not torch.equal(noisy.change, again.change)


def test_noise_of_untouched_rows_is_that_of_all_users() -> None:
    """One Laplace noise for each user on every entry: a variance of 2 · users · δ²."""
    private = {"clip_norm": 0.1, "laplace_scale": 3.0, "average": "users"}
    settings = TrainingSettings(**{**BASE, **private})
    users, items = 4, 5000
    keys = user_keys(b"secret", [f"user {k}" for k in range(users)])
    data = Ragged(np.arange(users + 1), np.zeros(users, np.int64))
    table = torch.zeros(items, DIM)
    state = HEADS["linear"].fresh(keys, settings)
    _, result = train_round(table, state, data, keys, ROUND, settings)
    untouched = result.change[result.touches == 0].flatten().numpy()
    singles = np.random.default_rng(0).laplace(0, 3.0, (users, 20_000)).sum(0)
    assert ks_2samp(untouched, singles).pvalue > 1e-7


def noisy(**more: Any) -> TrainingSettings:
    noise = {"average": "users", "clip_norm": 1.0, "gaussian_scale": 2.0**-12}
    return TrainingSettings.model_validate({**BASE, **noise, **more})


@pytest.mark.parametrize("row", [np.nan, np.inf, 3e38])
def test_with_noise_nothing_tells_whose_numbers_overflow(row: float) -> None:
    """A server that sends one row too large must not learn who has that item from an error."""
    settings, table, interactions = noisy(item_lr=1e6), make_table(), make_interactions()
    table[7] = row
    before = HEADS[settings.head].fresh(make_keys(), settings)
    after, result = train_round(table, before, interactions, make_keys(), ROUND, settings)
    assert result.change.dtype == torch.int64
    lists = np.split(interactions.items, interactions.offsets[1:-1])
    has = np.array([7 in items for items in lists])
    assert has.any()
    for name, head in after.items():
        assert torch.isfinite(head).all()
        if not np.isfinite(row):
            assert torch.equal(head[has], before[name][has])
    quiet = train_round(table, before, interactions, make_keys(), ROUND, noisy(item_lr=1e-3))[0]
    assert any(not torch.equal(quiet[name], before[name]) for name in before)


def test_without_noise_an_overflow_shows_in_the_loss() -> None:
    settings, table = TrainingSettings.model_validate(BASE), make_table()
    table[7] = np.nan
    state = HEADS[settings.head].fresh(make_keys(), settings)
    _, result = train_round(table, state, make_interactions(), make_keys(), ROUND, settings)
    assert np.isnan(result.loss_sum)
