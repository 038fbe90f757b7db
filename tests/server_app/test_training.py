"""The server's side of a training: its state, and what a checkpoint must not be mistaken for."""

from typing import Any

import numpy as np
import pytest
import torch

from common.catalogue import Catalogue, random_split
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.features import Blocks
from server_app.methods import ItemTable, World
from server_app.training import Training

CPU = torch.device("cpu")
SMALL_DIFFUSION = {"width": 16, "fit_steps": 0, "steps": 4}


def settings_of(method: str = "mdifffr", **changed: Any) -> RunSettings:
    changed = {name.replace("__", "."): value for name, value in changed.items()}
    own: dict[str, Any] = {}
    if method == "ipfedrec":
        own = {"condition_dim": 0}
    mixed = method in ("mixture", "snowdrop") and changed.get("mixture.first", "mdifffr")
    if "mdifffr" in (method, mixed):
        own = {f"mdifffr.{name}": value for name, value in SMALL_DIFFUSION.items()}
    return RunSettings.parse({"method": method, "dim": 6, **own, **changed})


def world_of(settings: RunSettings, items: int = 60) -> World:
    ids = tuple(f"i{k:03d}" for k in range(items))
    catalogue = Catalogue(ids, tuple(random_split(items, 0)), tuple(f"title {i}" for i in ids))
    features = np.random.default_rng(0).normal(size=(items, 12)).astype(np.float32)
    rng = np.random.default_rng(1)
    image = 5 * rng.normal(size=(items, 7)).astype(np.float32) * (rng.random((items, 1)) < 0.9)
    made = {"text": torch.from_numpy(features), "image": torch.from_numpy(image)}
    return World(settings, catalogue, made, CPU)


def training_of(method: str = "mdifffr", items: int = 60, **changed: Any) -> Training:
    return Training.begin(world_of(settings_of(method, **changed), items))


def table_of(training: Training) -> ItemTable:
    assert isinstance(training.method, ItemTable)
    return training.method


def test_a_new_training_begins_at_round_0_with_an_id_of_its_own() -> None:
    training = training_of()
    assert training.round == training.best_round == table_of(training).fitted_round == 0
    assert training.scale == 1.0
    assert training_of().id != training.id
    assert training.trained is training.method


def test_a_rule_has_a_training_that_stays_where_it_is() -> None:
    training = training_of("content-profile")
    assert training.trained is None
    training.snapshot()
    assert training.snapshots == {}
    assert "table" not in training.state()


@pytest.mark.parametrize("method", ["mdifffr", "ridge", "own-features", "mixture", "ipfedrec"])
def test_restore_takes_over_all_of_a_state(method: str) -> None:
    training = training_of(method)
    table = table_of(training)
    training.round = table.round = 3
    training.best_round, training.best_recall, training.scale = 2, 0.25, 0.5
    training.history.append({"round": 1, "loss": 0.5})
    table.table = table.table + 1
    table.prepare(3, validating=True)
    training.snapshot()
    again = training_of(method)
    again.restore(training.state())
    for name in ("id", "round", "best_round", "best_recall", "scale", "history"):
        assert getattr(again, name) == getattr(training, name)
    restored = table_of(again)
    assert restored.fitted_round == table.fitted_round == 3
    assert torch.equal(restored.table, table.table)
    assert torch.equal(again.snapshots[3]["cold"], training.snapshots[3]["cold"])
    for split in ("validation", "test"):
        assert torch.equal(restored.cold_table(split), table.cold_table(split))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"dim": 5}, "dim = 6, these settings say 5"),
        ({"mdifffr__attention_heads": 2}, "mdifffr.attention_heads = 4, these settings say 2"),
        ({"mdifffr__steps": 5}, "mdifffr.steps = 4, these settings say 5"),
        (
            {"mdifffr__schedule": "linear-variance"},
            "mdifffr.schedule = 'cosine', these settings say 'linear-variance'",
        ),
        ({"mdifffr__width": 32}, "mdifffr.width = 16, these settings say 32"),
        ({"method": "ridge"}, "method = 'mdifffr', these settings say 'ridge'"),
        ({"encoder": "other"}, "encoder = 'minilm', these settings say 'other'"),
        ({"table_start": "random"}, "table_start = 'features', these settings say 'random'"),
    ],
)
def test_restore_refuses_settings_that_give_the_numbers_another_meaning(
    changed: dict[str, Any], sentence: str
) -> None:
    state = training_of().state()
    with pytest.raises(SnowdropError, match=f"the checkpoint was made with .*{sentence}") as told:
        training_of(**changed).restore(state)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "changed",
    [{"rounds": 90}, {"head_lr": 1.0}, {"server_lr": 0.5}, {"mdifffr__lr": 0.1}, {"nodes": 7}],
)
def test_what_is_free_to_change_is_taken(changed: dict[str, Any]) -> None:
    again = training_of(**changed)
    again.restore(training_of().state())


def test_a_former_name_of_a_method_is_the_same_method() -> None:
    state = training_of("mixture").state()
    training_of("snowdrop").restore(state)


def test_a_training_moves_to_another_catalogue_without_fitting_anew() -> None:
    training = training_of("ridge")
    table_of(training).prepare(1, validating=True)
    weight = table_of(training).generator.state_dict()["weight"].clone()
    former = training.world
    features = torch.cat([former.features["text"], torch.ones(1, 12)])
    catalogue = Catalogue(
        (*former.catalogue.ids, "new"), (*former.catalogue.splits, "test"), ("",) * 61
    )
    moved = training.moved_to(World(training.settings, catalogue, {"text": features}, CPU))
    assert (moved.id, moved.round) == (training.id, training.round)
    assert torch.equal(table_of(moved).table, table_of(training).table)
    assert torch.equal(table_of(moved).generator.state_dict()["weight"], weight)
    assert len(table_of(moved).cold_table("test")) == len(table_of(training).cold_table("test")) + 1
    assert training.world is former


@pytest.mark.parametrize("method", ["mdifffr", "ridge"])
def test_a_table_reads_text_image_or_both(method: str) -> None:
    tables = {
        named: table_of(training_of(method, modality=named))
        for named in ("text", "image", "text,image", "text,image:0.5")
    }
    widths = {name: table.conditions("test").shape[1] for name, table in tables.items()}
    assert list(widths.values()) == [12, 7, 19, 19]
    starts = [table.table for table in tables.values()]
    assert len({tuple(start[0].tolist()) for start in starts}) == 4
    for table in tables.values():
        table.prepare(1, validating=True)
        assert table.cold_table("test").shape == (18, 6)
        assert torch.isfinite(table.cold_table("test")).all()


def test_the_text_alone_is_read_as_it_always_was() -> None:
    table = table_of(training_of("ridge"))
    assert table.features is table.world.features["text"]


def test_a_training_with_two_modalities_is_restored_whole() -> None:
    training = training_of("ridge", modality="text,image")
    table = table_of(training)
    table.prepare(3, validating=True)
    again = training_of("ridge", modality="text+image")
    table_of(again).blocks = Blocks({"text": 1.0}, {"text": torch.zeros(12)}, {"text": 1.0})
    again.restore(training.state())
    restored = table_of(again)
    assert torch.equal(restored.conditions("test"), table.conditions("test"))
    assert torch.equal(restored.cold_table("test"), table.cold_table("test"))
    with pytest.raises(SnowdropError, match="modality = 'text,image', these settings say 'text'"):
        training_of("ridge").restore(training.state())


def test_a_checkpoint_without_blocks_read_the_text() -> None:
    training = training_of("ridge")
    state = training.state()
    del state["blocks"], state["settings"]["modality"]
    again = training_of("ridge")
    again.restore(state)
    assert torch.equal(table_of(again).conditions("test"), table_of(training).conditions("test"))
