"""The server's side of a training, and its state."""

from typing import Any

import numpy as np
import pytest
import torch

from common.catalogue import ItemIndex, random_split
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.training import Training

CPU = torch.device("cpu")


def training_of(items: int = 60, **changed: Any) -> Training:
    index = ItemIndex(tuple(f"i{k:03d}" for k in range(items)), tuple(random_split(items, 0)))
    features = np.random.default_rng(0).normal(size=(items, 12)).astype(np.float32)
    small = {
        "dim": 6,
        "denoiser_width": 16,
        "generator_steps": 0,
        "diffusion_steps": 4,
        "neighbour_share": 0.0,
    }
    return Training.begin(RunSettings(**{**small, **changed}), index, features, CPU)


def test_a_new_training_starts_from_unit_rows_of_features() -> None:
    training = training_of()
    assert training.table.shape == (36, 6)
    torch.testing.assert_close(training.table.norm(dim=1), torch.ones(36))
    assert training.round == training.best_round == 0
    assert training_of().id != training.id


def test_a_random_start_depends_on_the_seed_alone() -> None:
    first, same = (
        training_of(table_start="random", generator_target="embedding", dim=32).table
        for _ in range(2)
    )
    other = training_of(table_start="random", generator_target="embedding", dim=32, seed=1).table
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("generator", ["diffusion", "ridge", "features"])
def test_restore_takes_over_all_of_a_state(generator: str) -> None:
    training = training_of(generator=generator)
    training.round, training.fitted_round = 3, 3
    training.best_round, training.best_recall = 2, 0.25
    training.history.append({"round": 1, "loss": 0.5})
    training.table = training.table + 1
    training.fit(training.generator)
    training.snapshot()
    again = training_of(generator=generator)
    again.restore(training.state())
    for name in ("id", "round", "fitted_round", "best_round", "best_recall", "history"):
        assert getattr(again, name) == getattr(training, name)
    assert torch.equal(again.table, training.table)
    assert torch.equal(again.snapshots[3]["cold"], training.snapshots[3]["cold"])
    for split in ("validation", "test"):
        assert torch.equal(again.cold_table(split), training.cold_table(split))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"dim": 5}, r"made with dim = 6, these settings say 5"),
    ],
)
def test_restore_refuses_what_does_not_fit(other: dict[str, int], sentence: str) -> None:
    state = training_of().state()
    with pytest.raises(SnowdropError, match=sentence) as refusal:
        training_of(**other).restore(state)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("other", [{"denoiser_width": 32}, {"generator": "ridge"}])
def test_restore_refuses_another_generator(other: dict[str, Any]) -> None:
    state = training_of().state()
    with pytest.raises(SnowdropError):
        training_of(**other).restore(state)


def test_features_generator_gives_cold_items_their_own_features() -> None:
    training = training_of(generator="features")
    training.table = training.table + 1
    training.fit(training.generator)
    own = training.transform.embeddings(training.features[training.rows["test"]])
    assert torch.equal(training.cold_table("test"), own)


def test_a_learnt_change_is_added_to_an_items_own_features() -> None:
    training = training_of(generator="ridge", generator_target="change")
    shift = torch.linspace(-1, 1, 6)
    training.table = training.table + shift
    loss, _ = training.fit(training.generator)
    own = training.transform.embeddings(training.features[training.rows["test"]])
    assert loss < 1e-6
    torch.testing.assert_close(training.cold_table("test"), own + shift, atol=1e-4, rtol=0)


def test_cold_tables_have_a_row_for_each_cold_item() -> None:
    training = training_of()
    training.fit(training.generator)
    assert training.cold_table("validation").shape == (6, 6)
    assert training.cold_table("test").shape == (18, 6)
    assert torch.equal(training.cold_table("test"), training.cold_table("test"))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_cold_item_is_part_generated_part_like_its_nearest_warm_items(share: float) -> None:
    training = training_of(generator="ridge", neighbours=3, neighbour_share=share)
    training.fit(training.generator)
    warm, cold = training.conditions("warm"), training.conditions("test")
    near = []
    for item in cold:
        similarity = torch.cosine_similarity(item[None], warm)
        near.append(training.table[similarity.argsort(descending=True)[:3]].mean(0))
    generated = training.cold_table("test", training.generator)
    expected = (1 - share) * generated + share * torch.stack(near)
    torch.testing.assert_close(training.cold_table("test"), expected)
