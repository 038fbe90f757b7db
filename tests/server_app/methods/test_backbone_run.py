"""Recommenders for warm items through the whole engine, against one user after another."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from cli.in_process import InProcessGrid
from client_app import tasks
from client_app.interactions import arrange, read_interactions
from client_app.ranking import evaluate
from common import messages
from common.catalogue import read_catalogue
from common.errors import SnowdropError
from common.settings import RunSettings
from common.users.heads import HEADS
from common.users.personal import FirstRows
from common.users.randomness import user_keys
from server_app.checkpoint import Checkpoints
from tests.common.users.alone import Alone
from tests.server_app.encoders import THEMES
from tests.server_app.runs import SpoiltGrid, run_here, state_of, untouched

TASK = "last-warm-item"
SMALL: dict[str, Any] = {
    "dim": 4,
    "rounds": 4,
    "evaluate_every": 1,
    "head_lr": 2.0,
    "seed": 3,
    "encoder": THEMES,
    "server_device": "cpu",
    "nodes_timeout": 5.0,
    "round_timeout": 5.0,
    "baselines": False,
    "keep_rounds": 9,
}
METHODS: dict[str, dict[str, Any]] = {
    "fcf": {"item_lr": 0.3, "fcf.lr_decay": 0.5},
    "fedncf": {"item_lr": 0.3, "batch_size": 7, "average": "users", "fedncf.scorer_lr": 0.5},
    "pfedrec": {"item_lr": 4.0, "pfedrec.item_lr_per_sample": False, "pfedrec.personal": True},
    "fedrap": {
        "item_lr": 0.3, "local_epochs": 2, "fedrap.difference": 0.5, "fedrap.sparsity": 0.3,
        "fedrap.own_rate": 0.4, "fedrap.own_scale": 0.2, "fedrap.keep": "touched",
    },
}  # fmt: skip
SHARED = {"fedncf": ["user_weight", "item_weight", "hidden_bias", "weight", "bias"]}


@pytest.fixture(scope="module")
def warm_folder(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users and 80 items, all of them warm."""
    folder = tmp_path_factory.mktemp("warm")
    items = pl.read_csv(data_folder / "items.csv").with_columns(split=pl.lit("warm"))
    items.write_csv(folder / "items.csv")
    (folder / "interactions.csv").write_bytes((data_folder / "interactions.csv").read_bytes())
    return folder


def values_of(folder: Path, run_dir: Path, method: str, **changed: Any) -> dict[str, Any]:
    changed = {name.replace("__", "."): value for name, value in changed.items()}
    place = {"data": str(folder), "run_dir": str(run_dir), "method": method}
    return {**SMALL, **METHODS[method], **place, "nodes": 2, **changed}


class Plain:
    """A federation as the papers write it: every user has whole tables, one after the other."""

    def __init__(self, folder: Path, method: str) -> None:
        self.settings = RunSettings.parse(values_of(folder, folder, method))
        self.own: Any = self.settings.group(method)
        catalogue = read_catalogue(folder, SMALL["seed"])
        self.index = catalogue.index()
        data = arrange(read_interactions([folder / "interactions.csv"]), catalogue)
        self.data, self.keys = data, user_keys(b"snowdrop simulation 3", data.users)
        self.histories = tasks.histories(TASK, data, self.keys)
        warm, dim = len(catalogue.ids), self.settings.dim
        draw = torch.Generator().manual_seed(SMALL["seed"])
        self.table = self.own.start_scale * torch.randn(warm, dim, generator=draw)
        whole = HEADS[self.settings.head].fresh(self.keys, self.settings)
        names = SHARED.get(method, [])
        self.scorer = self.first_scorer(names)
        self.private = {name: part for name, part in whole.items() if name not in names}
        self.tables: Tensor | None = None
        if method == "fedrap":
            first = FirstRows.drawn(
                self.keys, self.index.warm_keys, dim, self.own.own_scale, SMALL["seed"], False
            )
            self.tables = first.rows(np.arange(len(self.keys)), np.arange(warm))

    def first_scorer(self, names: list[str]) -> dict[str, Tensor]:
        draw, found = torch.Generator().manual_seed(SMALL["seed"] + 1), {}
        for name in names:
            shape, bound = HEADS[self.settings.head].shapes(self.settings.dim)[name]
            numbers = torch.rand(int(np.prod(shape)), generator=draw)
            found[name] = (bound * (2 * numbers - 1)).reshape(shape)
        return found

    def user(self, number: int, user: int) -> Alone:
        s, left = self.settings, self.own.lr_decay ** (number - 1)
        rates = dict.fromkeys(self.private, s.head_lr * left)
        rates |= dict.fromkeys(self.scorer, getattr(self.own, "scorer_lr", 0) * left)
        difference, sparsity = 0.0, 0.0
        if self.tables is not None:
            grown = np.tanh((number - 1) / 10)
            difference, sparsity = grown * self.own.difference, grown * self.own.sparsity
        return Alone(
            s.model_copy(update={"item_lr": s.item_lr * left}),
            {name: part[user] for name, part in self.private.items()} | self.scorer,
            rates,
            self.table,
            None if self.tables is None else self.tables[user],
            difference,
            sparsity,
            getattr(self.own, "own_rate", 1.0),
            self.own.item_lr_per_sample,
        )

    def round(self, number: int) -> None:
        users = len(self.keys)
        change = torch.zeros_like(self.table)
        touches = torch.zeros(len(self.table))
        scorer = {name: torch.zeros_like(part) for name, part in self.scorer.items()}
        for user in range(users):
            one = self.user(number, user)
            key = self.keys[user : user + 1]
            _, touched = one.train(self.histories.of(user), key, number)
            change += one.table - self.table
            touches += touched
            for name, part in self.private.items():
                part[user] = one.head[name]
            for name in scorer:
                scorer[name] += one.head[name] - self.scorer[name]
            if self.tables is not None:
                assert one.own is not None
                self.tables[user] = one.own
        by_users = self.settings.average == "users"
        self.table = self.table + change / (users if by_users else touches.clamp(min=1)[:, None])
        self.scorer = {name: part + scorer[name] / users for name, part in self.scorer.items()}

    def scores(self, number: int) -> Tensor:
        """Scores of all items after a round, float32 (users, items)."""
        rows = []
        for user in range(len(self.keys)):
            one = self.user(number + 1, user)
            if getattr(self.own, "personal", False):
                one.train(self.histories.of(user), self.keys[user : user + 1], 0)
            rows.append(one.scores(one.head, one.table, one.own, torch.arange(len(self.table))))
        return torch.stack(rows)

    def metrics(self, number: int, split: str) -> dict[str, float]:
        ranking = tasks.ranking(TASK, split, self.index, self.data, self.keys)
        scores = self.scores(number)
        users, sums = evaluate(ranking, lambda some: scores[torch.from_numpy(some)])
        return {name: value / users for name, value in sums.items()}


def trained(one: Plain) -> list[dict[str, float]]:
    """Train for all rounds; the validation metrics after each."""
    history = []
    for number in range(1, SMALL["rounds"] + 1):
        one.round(number)
        history.append(one.metrics(number, "validation"))
    return history


@pytest.fixture(scope="module")
def plain(warm_folder: Path) -> dict[str, tuple[Plain, list[dict[str, float]]]]:
    made = {method: Plain(warm_folder, method) for method in METHODS}
    return {method: (one, trained(one)) for method, one in made.items()}


@pytest.mark.parametrize("nodes", [1, 2, 7])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_published_algorithm_on_any_number_of_nodes(
    warm_folder: Path, tmp_path: Path, plain: Any, method: str, nodes: int
) -> None:
    expected, history = plain[method]
    values = values_of(warm_folder, tmp_path, method, nodes=nodes)
    summary = run_here(values)
    last = state_of(tmp_path, SMALL["rounds"])
    torch.testing.assert_close(last["table"], expected.table, atol=1e-4, rtol=1e-4)
    if method in SHARED:
        parts = HEADS["mlp"].parts(last["scorer"][0], SHARED[method], SMALL["dim"])
        for name, part in expected.scorer.items():
            torch.testing.assert_close(parts[name], part, atol=1e-4, rtol=1e-4)
    assert len(last["history"]) == len(history)
    for row, metrics in zip(last["history"], history, strict=True):
        for name, value in metrics.items():
            assert row[f"validation_{name}"] == pytest.approx(value, abs=1e-6), name
    assert summary["tested_users"] == len(expected.keys)
    assert summary["recommended_users"] == 0  # there is no new item


@pytest.mark.parametrize("method", METHODS)
def test_resuming_equals_an_undisturbed_run(warm_folder: Path, tmp_path: Path, method: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_here(values_of(warm_folder, whole, method))
    run_here(values_of(warm_folder, cut, method, rounds=2))
    Checkpoints(cut / "checkpoint").close()
    resumed = run_here(values_of(warm_folder, cut, method, resume=True))
    for name in ("table", "scorer"):
        assert torch.equal(state_of(cut, 4)[name], state_of(whole, 4)[name])
    rows = [state_of(folder, 4)["history"] for folder in (cut, whole)]
    names = [name for name in rows[0][0] if name.startswith("validation")]
    assert [[row[n] for n in names] for row in rows[0]] == [
        [row[n] for n in names] for row in rows[1]
    ]
    assert resumed["tested_users"] == 60


@pytest.mark.parametrize("method", METHODS)
def test_the_frozen_twin_leaves_what_is_shared_as_it_starts(
    warm_folder: Path, tmp_path: Path, method: str
) -> None:
    values = values_of(warm_folder, tmp_path, method, baselines=True, rounds=2)
    summary = run_here(values)
    twin = summary["baselines"]["frozen"]
    assert twin["kind"] == "twin"
    first = Plain(warm_folder, method)
    state = Checkpoints(tmp_path / "frozen" / "checkpoint", exclusive=False).load(2)
    assert torch.equal(state["table"], first.table)
    moved = state_of(tmp_path, 2)
    assert not torch.equal(moved["table"], first.table)
    if method in SHARED:
        parts = HEADS["mlp"].parts(state["scorer"][0], SHARED[method], SMALL["dim"])
        assert all(torch.equal(parts[name], part) for name, part in first.scorer.items())
        assert not torch.equal(moved["scorer"], state["scorer"])
    assert "content-profile" in summary["baselines"]


@pytest.mark.parametrize("method", METHODS)
def test_what_leaves_a_node(warm_folder: Path, tmp_path: Path, method: str) -> None:
    values = values_of(warm_folder, tmp_path, method, rounds=1)
    answers: list[messages.TrainAnswer] = []

    class Listening(InProcessGrid):
        def deliver(self, message: Any) -> Any:
            reply = super().deliver(message)
            asked = message.metadata.message_type == messages.TRAIN
            if asked and "values" in reply.content.config_records:
                answers.append(messages.TrainAnswer.from_record(reply.content))
            return reply

    run_here(values, Listening(2, values))
    expected = {"change": (80, 4)}
    if method != "fedncf":
        expected["touches"] = (80,)  # type: ignore[assignment]
    else:
        expected["scorer"] = (1, HEADS["mlp"].size(SHARED[method], 4))
    assert len(answers) == 2
    for answer in answers:
        assert {name: one.shape for name, one in answer.sums.items()} == expected


@pytest.mark.parametrize("method", ["fedncf", "fedrap"])
def test_bounds_noise_and_half_numbers(warm_folder: Path, tmp_path: Path, method: str) -> None:
    private = {
        "clip_norm": 0.5, "laplace_scale": 0.01, "average": "users", "release_metrics": True
    }  # fmt: skip
    values = values_of(
        warm_folder, tmp_path, method, rounds=2, wire_dtype="float16", fraction=0.5, **private
    )
    summary = run_here(values)
    assert 0 < summary["validation"]["recall@20"] <= 1


def test_items_that_are_new_are_not_ranked(data_folder: Path, tmp_path: Path) -> None:
    values = values_of(data_folder, tmp_path, "pfedrec", rounds=1)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    assert summary["recommended_users"] == 0
    assert not grid.of(messages.QUERY_RECOMMEND)
    with pytest.raises(SnowdropError, match="the method pfedrec ranks no new items to publish"):
        run_here({**values, "mode": "publish"})
    with pytest.raises(SnowdropError, match="pfedrec cannot rank for task = cold-items; choose"):
        RunSettings.parse({**values, "task": "cold-items"})


# FCF as published.

SOLVED = {"fcf__confidence": 4.0, "fcf__ridge": 0.3, "fcf__adam_lr": 0.2, "server_lr": 0.8}


def plain_fcf(folder: Path) -> Plain:
    """The published algorithm, user by user, in float64; the server steps by Adam."""
    one = Plain(folder, "fcf")
    leaf = torch.nn.Parameter(one.table.double())
    adam = torch.optim.Adam([leaf], lr=0.2)
    table, warm = one.table.double(), len(one.table)
    for _ in range(SMALL["rounds"]):
        gradient = 2 * 0.3 * table
        for user in range(len(one.keys)):
            wanted = torch.zeros(warm, dtype=torch.float64)
            wanted[one.histories.of(user)] = 1
            weights = 1 + 4.0 * wanted
            matrix = table.T @ (weights[:, None] * table) + 0.3 * torch.eye(4)
            vector = torch.linalg.solve(matrix, table.T @ (weights * wanted))
            left = weights * (wanted - table @ vector)
            gradient -= 2 * left[:, None] * vector
        leaf.data, leaf.grad = table.clone(), gradient / len(one.keys)
        adam.step()
        table = table + 0.8 * (leaf.detach() - table)
    one.table = table.float()
    return one


@pytest.mark.parametrize("nodes", [1, 7])
def test_fcf_by_least_squares_is_the_published_algorithm(
    warm_folder: Path, tmp_path: Path, nodes: int
) -> None:
    expected = plain_fcf(warm_folder)
    values = values_of(warm_folder, tmp_path, "fcf", nodes=nodes, **SOLVED)
    summary = run_here({**values, "method": "fcf:least-squares"})
    torch.testing.assert_close(
        state_of(tmp_path, SMALL["rounds"])["table"], expected.table, atol=2e-3, rtol=2e-3
    )
    assert summary["method"] == "FCF, least squares"
    assert summary["validation"]["recall@50"] > 0


def test_fcf_by_least_squares_goes_on_with_its_moments(warm_folder: Path, tmp_path: Path) -> None:
    tables = {}
    for name, stops in {"whole": [4], "cut": [2, 4]}.items():
        for rounds in stops:
            values = values_of(
                warm_folder, tmp_path / name, "fcf", rounds=rounds, resume=rounds != stops[0],
                **SOLVED,
            )  # fmt: skip
            run_here({**values, "method": "fcf:least-squares"})
        tables[name] = state_of(tmp_path / name, 4)["table"]
    assert torch.equal(tables["whole"], tables["cut"])


def test_fcf_by_least_squares_needs_means_over_users() -> None:
    with pytest.raises(SnowdropError, match=r"fcf.solver = least-squares needs average = users"):
        RunSettings.parse({"method": "fcf:least-squares", "average": "touches"})
