"""The server's half of recommenders for warm items: how it starts, steps and grows."""

from typing import Any

import numpy as np
import pytest
import torch

from common.catalogue import Catalogue
from common.errors import OverflowedError, SnowdropError
from common.settings import RunSettings
from common.users.heads import HEADS
from server_app.aggregation import Summed
from server_app.methods import World
from server_app.methods.backbone import Backbone
from server_app.training import Training

WARM, DIM = 9, 4
PARTS = ("user_weight", "item_weight", "hidden_bias", "weight", "bias")


def world_of(method: str, warm: int = WARM, cold: int = 2, **changed: Any) -> World:
    changed = {name.replace("__", "."): value for name, value in changed.items()}
    settings = RunSettings.parse({"method": method, "dim": DIM, **changed})
    ids = tuple(f"i{k}" for k in range(warm + cold))
    splits = ("warm",) * warm + ("test",) * cold
    features = {"text": torch.zeros(warm + cold, 3)}
    return World(settings, Catalogue(ids, splits, ids), features, torch.device("cpu"))


def training_of(method: str, **changed: Any) -> tuple[Training, Backbone]:
    training = Training.begin(world_of(method, **changed))
    assert isinstance(training.method, Backbone)
    return training, training.method


def summed(half: Backbone, users: int = 5, seed: int = 0) -> Summed:
    rng = np.random.default_rng(seed)
    sums: dict[str, np.ndarray] = {}
    for name, one in half.expected().items():
        drawn = rng.integers(0, 4, one.shape) if one.counts else rng.normal(size=one.shape)
        sums[name] = drawn
    return Summed(users, 1.0, sums)


@pytest.mark.parametrize("method", ["fcf", "fedncf", "pfedrec", "fedrap"])
def test_it_starts_at_random_from_the_seed_alone(method: str) -> None:
    scale = {f"{method}__start_scale": 0.25}
    first, same, other = (
        training_of(method, warm=200, seed=seed, **scale)[1] for seed in (0, 0, 1)
    )
    assert float(first.table.std()) == pytest.approx(0.25, rel=0.1)
    assert torch.equal(first.table, same.table)
    assert torch.equal(first.scorer, same.scorer)
    assert not torch.equal(first.table, other.table)
    assert first.scorer.shape[1] == (HEADS["mlp"].size(PARTS, DIM) if method == "fedncf" else 0)


def test_a_shared_scorer_starts_within_the_bounds_of_its_head() -> None:
    _, half = training_of("fedncf", dim=32)
    parts = HEADS["mlp"].parts(half.scorer[0], PARTS, 32)
    for name, (shape, bound) in HEADS["mlp"].shapes(32).items():
        if name != "user":
            assert parts[name].shape == shape
            assert 0.8 * bound < float(parts[name].abs().max()) <= bound or name == "bias"


@pytest.mark.parametrize("average", ["users", "touches"])
def test_a_step_is_a_mean(average: str) -> None:
    _, half = training_of("fedncf", average=average, server_lr=0.5)
    table, scorer, sums = half.table.clone(), half.scorer.clone(), summed(half)
    half.step(sums)
    for row in range(WARM):
        divisor = 5 if average == "users" else max(1, sums.sums["touches"][row])
        expected = table[row].numpy() + 0.5 * sums.sums["change"][row] / divisor
        np.testing.assert_allclose(half.table[row].numpy(), expected, atol=1e-6)
    expected = scorer.numpy() + 0.5 * sums.sums["scorer"] / 5
    np.testing.assert_allclose(half.scorer.numpy(), expected, atol=1e-6)
    assert half.round == half.fitted_round == 1
    assert half.prepare(1, validating=True) == {}


def test_a_round_of_nobody_moves_nothing() -> None:
    _, half = training_of("fedncf")
    before = half.table.clone(), half.scorer.clone()
    half.step(summed(half, users=0))
    assert torch.equal(half.table, before[0])
    assert torch.equal(half.scorer, before[1])
    assert half.round == 1


@pytest.mark.parametrize("name", ["change", "scorer"])
def test_an_overflow_is_one_sentence(name: str) -> None:
    _, half = training_of("fedncf", average="users")
    sums = summed(half, users=1)
    sums.sums[name][:] = np.float64(3e38)  # type: ignore[index]
    half.step(sums)
    with pytest.raises(OverflowedError, match="overflowed in round 2; lower item_lr or head_lr"):
        half.step(sums)


def test_what_nodes_are_sent() -> None:
    _, half = training_of("fedncf")
    assert set(half.arrays()) == {"table", "scorer"}
    scoring = half.scoring(["warm"])
    assert (scoring.scorer, scoring.method) == ("backbone", "fedncf")
    assert set(scoring.arrays) == {"items", "scorer", "round"}
    np.testing.assert_array_equal(scoring.arrays["items"], half.table.numpy())
    for method in ("fcf", "pfedrec", "fedrap"):
        half = training_of(method)[1]
        assert set(half.arrays()) == {"table"}
        assert set(half.scoring(["warm"]).arrays) == {"items", "round"}


def test_new_items_are_not_scored() -> None:
    with pytest.raises(SnowdropError, match="fedrap ranks only items that were trained"):
        training_of("fedrap")[1].scoring(["validation", "test"])


def test_a_checkpoint_is_taken_over_and_new_rows_start_at_random() -> None:
    training, half = training_of("fedncf")
    half.step(summed(half))
    training.round = 1
    same, other = training_of("fedncf")
    same.restore(training.state())
    assert torch.equal(other.table, half.table)
    assert torch.equal(other.scorer, half.scorer)
    assert other.round == 1

    world = world_of("fedncf", warm=10, cold=1)
    grown = Training.begin(world)
    assert isinstance(grown.method, Backbone)
    start = grown.method.table.clone()
    grown.restore(training.state())
    assert torch.equal(grown.method.table[:WARM], half.table)
    assert torch.equal(grown.method.table[WARM], start[WARM])
    moved = half.moved_to(world)
    assert torch.equal(moved.table, grown.method.table)
    assert len(half.table) == WARM
