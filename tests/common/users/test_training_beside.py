"""What is trained beside heads and the item table, against one user at a time with whole tables."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from common.discrete import STEP
from common.settings import TrainingSettings
from common.users import mechanism, training
from common.users.heads import HEADS, State
from common.users.training import Beside, RoundResult, Samples
from common.users.training import train_round as train
from tests.common.users.alone import Alone, in_numbers
from tests.common.users.test_training import (
    BASE,
    ITEMS,
    ROUND,
    USERS,
    make_interactions,
    make_keys,
    make_table,
)

SHARED = ("user_weight", "item_weight", "hidden_bias", "weight", "bias")
WEIGHT, ALPHA, BETA, OWN_RATE = 0.7, 0.3, 0.2, 0.5
TEACHER = torch.rand(2, ITEMS, generator=torch.Generator().manual_seed(8)) * 0.8 + 0.1


class Parity:
    """Users are in the group that their number says; which a test can tell without their state."""

    count = 2

    def of(self, users: np.ndarray, state: State) -> Tensor:
        assert all(len(part) == len(users) for part in state.values())
        return torch.from_numpy(users % 2)


class Distil:
    """KL(t ‖ σ(score)) to a teacher of each user's group, as a mean over the batch."""

    def losses(
        self, users: np.ndarray, samples: Samples, batch: Tensor | None, logits: Tensor
    ) -> Tensor:
        items = samples.items if batch is None else samples.items.gather(1, batch)
        real = samples.real if batch is None else samples.real.gather(1, batch)
        wanted = TEACHER[torch.from_numpy(users % 2)].gather(1, items)
        entropy = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        own = -wanted * wanted.log() - (1 - wanted) * (1 - wanted).log()
        return WEIGHT * ((entropy - own) * real).sum(1) / real.sum(1).clamp(min=1)


class Dense:
    """Every user's own item table as a whole."""

    rate = OWN_RATE

    def __init__(self) -> None:
        self.tables = own_tables()

    def rows(self, users: np.ndarray, samples: Samples) -> Tensor:
        return self.tables[torch.from_numpy(users)[:, None], samples.items]

    def gradients(self, own: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        each = weights[:, :, None] / own.shape[2]
        return -2 * ALPHA * each * (own - rows), each * (
            2 * ALPHA * (own - rows) + BETA * rows.sign()
        )

    def keep(self, users: np.ndarray, samples: Samples, own: Tensor) -> None:
        for k, user in enumerate(users):
            real = samples.real[k] > 0
            self.tables[user, samples.items[k][real]] = own[k][real]


def own_tables() -> Tensor:
    draw = torch.Generator().manual_seed(4)
    return 0.3 * torch.randn(USERS, ITEMS, BASE["dim"], generator=draw)


def alone(
    user: int, state: State, settings: TrainingSettings, beside: Beside, table: Tensor, own: Tensor
) -> Alone:
    private = {name: part[user] for name, part in state.items()}
    return Alone(
        settings,
        {**private, **beside.scorer},
        dict.fromkeys(private, settings.head_lr) | dict.fromkeys(beside.scorer, beside.scorer_lr),
        table,
        own if beside.personal is not None else None,
        ALPHA,
        BETA,
        OWN_RATE,
        beside.rows_by_sum,
        TEACHER[user % 2] if beside.loss is not None else None,
        WEIGHT,
    )


def one_after_another(
    state: State, settings: TrainingSettings, beside: Beside
) -> tuple[State, RoundResult, Tensor]:
    table, data, keys = make_table(), make_interactions(), make_keys()
    groups = 1 if beside.groups is None else 2
    change = torch.zeros(groups, *table.shape)
    parts = {**beside.scorer, **{name: torch.zeros_like(state[name][0]) for name in beside.told}}
    moved = {name: torch.zeros(groups, *part.shape) for name, part in parts.items()}
    touches = torch.zeros(groups, ITEMS, dtype=torch.int64)
    after, tables, total = {n: p.clone() for n, p in state.items()}, own_tables(), 0.0
    for user in range(USERS):
        one = alone(user, state, settings, beside, table, tables[user])
        loss, touched = one.train(data.of(user), keys[user : user + 1], ROUND)
        head, group = one.head, user % groups
        step = one.table - table
        left = {name: head[name] - part for name, part in parts.items()}
        order = 2 if settings.gaussian_scale else 1
        powers = [float((part.abs() ** order).sum()) for part in (step, *left.values())]
        norm = sum(powers) ** (1 / order)
        bound = (settings.clip_norm**order - beside.membership**order) ** (1 / order)
        kept = min(1.0, bound / norm) if settings.clip_norm else 1.0
        change[group] += kept * step
        touches[group] += touched
        for name, part in left.items():
            moved[name][group] += kept * part
        for name in state:
            after[name][user] = head[name]
        tables[user] = tables[user] if one.own is None else one.own
        total += loss
    if beside.groups is None:
        moved = {name: part[0] for name, part in moved.items()}
        return after, RoundResult(change[0], touches[0], total, USERS, moved), tables
    members = torch.tensor([USERS // 2, USERS // 2])
    if beside.membership:
        members = members * beside.membership
    return after, RoundResult(change, touches, total, USERS, moved, members), tables


def scorer() -> State:
    draw = torch.Generator().manual_seed(6)
    shapes = HEADS["mlp"].shapes(BASE["dim"])
    return {name: torch.randn(shapes[name][0], generator=draw) * 0.5 for name in SHARED}


CASES = {
    "shared scorer": {"head": "mlp", "scorer": True},
    "batches": {"head": "mlp", "scorer": True, "batch_size": 4, "local_epochs": 2},
    "bounded-l2": {"head": "mlp", "scorer": True, "clip_norm": 0.1, "average": "users",
                   "gaussian_scale": 1.0, "noise_by": "server"},
    "bounded": {"head": "mlp", "scorer": True, "clip_norm": 0.8, "average": "users"},
    "sum": {"head": "dot", "rows_by_sum": True, "item_lr": 0.02, "batch_size": 5},
    "distilled": {"head": "linear", "loss": Distil(), "batch_size": 4},
    "distilled scorer": {"head": "mlp", "scorer": True, "loss": Distil()},
    "groups": {"head": "mlp", "scorer": True, "groups": Parity(), "loss": Distil()},
    "told": {"head": "linear", "groups": Parity(), "told": ("weight", "bias"), "clip_norm": 1.0,
             "average": "users"},
    "told with a membership": {
        "head": "mlp", "scorer": True, "groups": Parity(), "told": ("user",), "clip_norm": 0.7,
        "average": "users", "gaussian_scale": 1.0, "noise_by": "server", "membership": 0.3},
    "own tables": {"head": "linear", "personal": True},
    "own tables, all": {"head": "linear", "personal": True, "rows_by_sum": True, "item_lr": 0.03,
                        "batch_size": 4, "local_epochs": 2, "loss": Distil(), "groups": Parity(),
                        "clip_norm": 0.5, "average": "users"},
}  # fmt: skip


def made_of(case: dict[str, Any]) -> tuple[TrainingSettings, Beside, State]:
    names = set(TrainingSettings.model_fields) - {"groups"}
    settings = TrainingSettings(**{**BASE, **{n: v for n, v in case.items() if n in names}})
    beside = Beside(
        scorer=scorer() if case.get("scorer") else {},
        scorer_lr=0.2,
        personal=Dense() if case.get("personal") else None,
        **{
            n: case[n] for n in ("rows_by_sum", "loss", "groups", "told", "membership") if n in case
        },
    )
    whole = HEADS[settings.head].fresh(make_keys(), settings)
    return settings, beside, {n: part for n, part in whole.items() if n not in beside.scorer}


def check(result: RoundResult, expected: RoundResult) -> None:
    torch.testing.assert_close(result.change, expected.change, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.touches, expected.touches)
    assert result.loss_sum == pytest.approx(expected.loss_sum, rel=1e-5)
    assert result.users == expected.users
    assert result.scorer.keys() == expected.scorer.keys()
    for name, part in expected.scorer.items():
        torch.testing.assert_close(result.scorer[name], part, rtol=1e-4, atol=1e-5)
    if expected.members is not None:
        torch.testing.assert_close(result.members, expected.members)


@pytest.mark.parametrize("numbers", [1, 400, training.CHUNK_NUMBERS])
@pytest.mark.parametrize("name", CASES)
def test_a_round_equals_one_user_at_a_time(
    name: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHUNK_NUMBERS", numbers)
    settings, beside, state = made_of(CASES[name])
    after, result = train(
        make_table(), state, make_interactions(), make_keys(), ROUND, settings, beside=beside
    )
    expected, sums, tables = one_after_another(state, settings, beside)
    check(in_numbers(result, beside.membership), sums)
    assert after.keys() == expected.keys()
    for part in expected:
        torch.testing.assert_close(after[part], expected[part], rtol=1e-4, atol=1e-5)
    if isinstance(beside.personal, Dense):
        torch.testing.assert_close(beside.personal.tables, tables, rtol=1e-4, atol=1e-5)
        assert not torch.equal(tables, own_tables())


def test_groups_add_up_to_the_whole() -> None:
    settings, beside, state = made_of(CASES["groups"])
    data, keys = make_interactions(), make_keys()
    _, apart = train(make_table(), state, data, keys, ROUND, settings, beside=beside)
    _, whole = train(
        make_table(), state, data, keys, ROUND, settings, beside=replace(beside, groups=None)
    )
    assert apart.members is not None
    assert whole.members is None
    torch.testing.assert_close(apart.change.sum(0), whole.change)
    torch.testing.assert_close(apart.touches.sum(0), whole.touches)
    assert int(apart.members.sum()) == whole.users == USERS
    for name, part in whole.scorer.items():
        torch.testing.assert_close(apart.scorer[name].sum(0), part)


@pytest.mark.parametrize("name", ["groups", "told", "told with a membership"])
def test_noise_hides_every_entry_of_every_group(name: str) -> None:
    """Also the size of a group, and all of a group that no user is in."""

    class Three(Parity):
        count = 3

    noise = {"gaussian_scale": 0.0, "noise_by": "nodes", "laplace_scale": 3.0}
    private = {"average": "users", "clip_norm": 0.5, "membership": 0.2, "groups": Three()}
    settings, beside, state = made_of({**CASES[name], **private, **noise})
    data, keys = make_interactions(), make_keys()
    quiet = settings.model_copy(update={"laplace_scale": 0.0})
    noisy, still = (
        train(make_table(), state, data, keys, ROUND, own, beside=beside)[1]
        for own in (settings, quiet)
    )
    assert noisy.members is not None and still.members is not None
    torch.testing.assert_close(still.members, torch.tensor([USERS // 2, USERS // 2, 0]) * 0.2)
    found = [noisy.change - still.change, noisy.members - still.members]
    found += [noisy.scorer[name] - part for name, part in still.scorer.items()]
    entries = sum(int((part != 0).sum()) for part in found)
    sizes = [part[0].numel() for part in still.scorer.values()]
    assert entries == 3 * (ITEMS * BASE["dim"] + sum(sizes) + 1)
    everything = torch.cat([part.flatten() for part in found])
    assert float(everything.std()) == pytest.approx(3.0 * (2 * USERS) ** 0.5, rel=0.2)


class InGroup(Parity):
    """All users are in one of the two groups."""

    def __init__(self, group: int) -> None:
        self._group = group

    def of(self, users: np.ndarray, state: State) -> Tensor:
        return torch.full((len(users),), self._group)


@settings_of_hypothesis(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    norm=st.floats(0.01, 5.0),
    share=st.floats(0.05, 0.95),
    noise=st.sampled_from(["laplace_scale", "gaussian_scale"]),
    pair=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_two_values_of_a_user_differ_by_at_most_two_bounds(
    seed: int, norm: float, share: float, noise: str, pair: tuple[int, int]
) -> None:
    """What one user gives to all sums, whatever its head and its group: a norm of at most C."""
    order = 1 if noise == "laplace_scale" else 2
    parts = []
    for k, group in enumerate(pair):
        case = {**CASES["told"], "clip_norm": norm, noise: 1.0, "membership": share * norm,
                "groups": InGroup(group)}  # fmt: skip
        settings, beside, state = made_of(case)
        draw = torch.Generator().manual_seed(seed + k)
        state = {name: torch.randn(part.shape, generator=draw) for name, part in state.items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "participants", lambda keys, number, fraction: np.array([3]))
            patch.setattr(mechanism, "laplace_sum", lambda users, shape, scale: torch.zeros(shape))
            patch.setattr(mechanism, "discrete_gaussian", lambda shape, _: np.zeros(shape, int))
            _, alone = train(make_table(), state, make_interactions(), make_keys(), ROUND,
                             settings, beside=beside)  # fmt: skip
        assert alone.users == 1
        assert alone.members is not None
        everything = [alone.change, *alone.scorer.values(), alone.members]
        unit = 1.0 if order == 1 else STEP
        parts.append(torch.cat([part.flatten() for part in everything]).double() * unit)
        assert float(parts[-1].norm(p=order)) <= norm * (1 + 1e-5 * (order == 1))
        assert float(alone.members[group]) * unit == pytest.approx(share * norm)
    assert float((parts[0] - parts[1]).norm(p=order)) <= 2 * norm * (1 + 1e-5)


def test_a_pull_with_groups_is_refused() -> None:
    settings, beside, state = made_of(CASES["groups"])
    with pytest.raises(ValueError, match="a pull knows no groups"):
        train(
            make_table(), state, make_interactions(), make_keys(), ROUND, settings,
            pull=object(), beside=beside,  # type: ignore[arg-type]
        )  # fmt: skip
