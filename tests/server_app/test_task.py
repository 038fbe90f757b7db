"""The task 'last-warm-item', end to end: held-out items are ranked, and never trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cli.in_process import InProcessGrid
from client_app import tasks
from client_app.interactions import NodeInteractions
from client_app.methods import base as node_half
from client_app.node import Node
from common import messages
from common.catalogue import read_catalogue
from common.errors import SnowdropError
from tests.server_app.runs import SpoiltGrid, rounds_of, run_here, run_values, state_of, untouched

TASK = "last-warm-item"


class Watched:
    """What nodes trained on, and what they hold out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[set[tuple[int, int]]] = []
        self.held_out: set[tuple[int, int]] = set()
        train_round, interactions = node_half.train_round, Node.interactions

        def train(table: Any, state: Any, histories: Any, keys: np.ndarray, *rest: Any) -> Any:
            owner = np.repeat(keys, histories.counts)
            self.trained.append(set(zip(owner.tolist(), histories.items.tolist(), strict=True)))
            return train_round(table, state, histories, keys, *rest)

        def found(node: Node, version: str) -> Any:
            index, data = interactions(node, version)
            self.note(data, node.keys(data))
            return index, data

        monkeypatch.setattr(node_half, "train_round", train)
        monkeypatch.setattr(Node, "interactions", found)

    def note(self, data: NodeInteractions, keys: np.ndarray) -> None:
        owner = np.repeat(keys, data.warm.counts)
        for chosen in tasks.held_out(data.warm, keys, tasks.times_of(data)):
            pairs = zip(owner[chosen].tolist(), data.warm.items[chosen].tolist(), strict=True)
            self.held_out |= set(pairs)


def test_it_trains_validates_and_tests(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    values = run_values(data_folder, tmp_path, method="own-features", task=TASK, twin=True)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    assert len(rounds_of(tmp_path)) == 4
    assert summary["best_round"] in (2, 4)
    assert summary["tested_users"] == summary["validated_users"] == 60
    assert 0 < summary["test"]["recall@20"] <= 1
    assert (summary["task"], summary["order"]) == (TASK, "seeded")
    assert summary["dataset"]["items"] == {"warm": 80, "validation": 0, "test": 0}
    assert summary["recommended_users"] == 0  # no item is new
    rules = {"content-profile", "kernel-profile", "tfidf-profile", "random"}
    assert rules <= set(summary["baselines"]) <= rules | {"kernel-ridge", "frozen"}
    assert summary["baselines"]["frozen"]["kind"] == "twin"

    assert len(watched.held_out) == 2 * 60
    assert len(watched.trained) == 2 * (4 + 4)  # nodes, and rounds of the training and its twin
    for pairs in watched.trained:
        assert not pairs & watched.held_out
    whole = set().union(*watched.trained)
    assert len({user for user, _ in whole}) == 60

    table = state_of(tmp_path, summary["best_round"])["table"].numpy()
    asked = [messages.EvaluateRequest.from_record(m.content) for m in grid.of(messages.EVALUATE)]
    of_training = [r for r in asked if r.training == summary["training"]]
    own = [ranked for r in of_training for ranked in r.rankings() if ranked.scorer == "head"]
    assert {request.task for request in asked} == {TASK}
    assert {ranked.split for ranked in own} == {"validation", "test"}
    for ranked in own:
        if ranked.split == "test":
            np.testing.assert_array_equal(ranked.arrays["items"], table)  # warm items are ranked


def test_a_method_that_cannot_is_told(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="kernel-ridge cannot rank for task = last-warm-item"):
        run_here(run_values(data_folder, tmp_path, method="kernel-ridge", task=TASK))


def test_a_training_keeps_its_task(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(
        data_folder, tmp_path, method="own-features", baselines=False, rounds=1, task=TASK
    )
    run_here(values)
    with pytest.raises(SnowdropError, match=f"task = '{TASK}', these settings say 'cold-items'"):
        run_here({**values, "task": "cold-items", "resume": True})


def test_a_rule_ranks_for_it_without_a_round(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, method="content-profile", task=TASK)
    summary = run_here(values)
    assert rounds_of(tmp_path) == []
    assert summary["tested_users"] == 60
    assert summary["test"]["recall@20"] > summary["baselines"]["random"]["test"]["recall@20"]


def timed_folder(folder: Path, source: Path, cold: bool) -> Path:
    """The data of another folder, interactions with their place in a user's history."""
    folder.mkdir()
    items = pl.read_csv(source / "items.csv", infer_schema=False)
    if cold:
        splits = ["test" if k % 5 == 0 else "warm" for k in range(items.height)]
        items = items.with_columns(pl.Series("split", splits))
    items.write_csv(folder / "items.csv")
    pairs = pl.read_csv(source / "interactions.csv", infer_schema=False)
    pairs.with_columns(pl.int_range(pl.len()).over("user_id").alias("position")).write_csv(
        folder / "interactions.csv"
    )
    return folder


def test_the_order_of_the_data_counts(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = timed_folder(tmp_path / "data", data_folder, cold=False)
    watched = Watched(monkeypatch)
    values = run_values(data, tmp_path / "run", method="own-features", task=TASK, rounds=2)
    summary = run_here({**values, "baselines": False})
    assert summary["order"] == "position"
    assert not summary["timing"]["generator_seconds_median"]  # there is nothing to generate
    pairs = pl.read_csv(data / "interactions.csv")
    ids = pairs["item_id"].unique().sort()
    last = pairs.sort("position").group_by("user_id").tail(2)
    rows = {item: row for row, item in enumerate(read_catalogue(data, 0).ids)}
    assert len(ids) <= len(rows)
    keys = dict(zip(last["user_id"].unique().sort(), user_keys_of(data, values), strict=True))
    expected = {(keys[user], rows[item]) for user, item, _ in last.rows()}
    trained = set().union(*watched.trained)
    assert len(expected) == 120
    assert not trained & expected
    whole = {(keys[user], rows[item]) for user, item, _ in pairs.rows()}
    assert trained == whole - expected


def user_keys_of(data: Path, values: dict[str, Any]) -> list[int]:
    """Keys of all users in the order of their ids, from a node that has them all."""
    node = Node(InProcessGrid(1, {**values, "nodes": 1}).context())
    index = read_catalogue(data, 0, all_warm=True).index()
    node.store.save_index(index)
    return node.keys(node.interactions(index.version)[1]).tolist()


def test_cold_items_stay_cold_where_the_data_says_so(data_folder: Path, tmp_path: Path) -> None:
    data = timed_folder(tmp_path / "data", data_folder, cold=True)
    values = run_values(data, tmp_path / "run", method="own-features", task=TASK, rounds=1)
    summary = run_here({**values, "baselines": False})
    assert summary["dataset"]["items"] == {"warm": 64, "validation": 0, "test": 16}
    assert summary["recommended_users"] == 60
    assert 50 < summary["tested_users"] <= 60  # those with three warm items


def test_times_that_are_no_numbers_end_the_run(
    data_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = timed_folder(tmp_path / "data", data_folder, cold=False)
    path = data / "interactions.csv"
    path.write_text(path.read_text().replace(",0\n", ",first\n"))
    values = run_values(data, tmp_path / "run", method="own-features", task=TASK, rounds=1)
    with pytest.raises(SnowdropError, match="no usable answer"):
        run_here({**values, "round_retries": 0})
    assert "the column 'position' holds no number in " in capfd.readouterr().err
    run_here(run_values(data, tmp_path / "cold", method="own-features", rounds=1))
