"""IPFedRec through the whole engine, against the published algorithm one user at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, mse_loss

from common.catalogue import read_catalogue
from common.settings import RunSettings
from common.users.heads import HEADS
from common.users.ragged import Ragged
from common.users.randomness import user_keys
from common.users.training import batch_order, draw_samples
from server_app.checkpoint import newest_state
from tests.server_app.encoders import THEMES, theme_features
from tests.server_app.runs import run_here

PUBLISHED: dict[str, Any] = {
    "method": "ipfedrec",
    "preset": "paper",
    "condition_dim": 0,
    "encoder": THEMES,
    "pooling": "mean",
}
SMALL: dict[str, Any] = {"rounds": 5, "evaluate_every": 1, "batch_size": 7, "seed": 3}
HERE = {"server_device": "cpu", "nodes_timeout": 5.0, "round_timeout": 2.0, "baselines": False}


class Client:
    """A user of IFedRec's code: a copy of the item table, and a score function that stays."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()

    def predict(self, rows: Tensor) -> Tensor:
        return torch.sigmoid(rows @ self.weight + self.bias)

    def train(
        self, table: Tensor, mapped: Tensor, batches: list[tuple[Tensor, Tensor]], rate: float
    ) -> Tensor:
        """Its item table after one epoch; the item learning rate is ``rate`` · warm · 80."""
        own = table.clone().requires_grad_()
        score = torch.optim.SGD([self.weight, self.bias], lr=rate)
        items = torch.optim.SGD([own], lr=rate * len(table) * 80)
        for places, ratings in batches:
            score.zero_grad()
            binary_cross_entropy(self.predict(own[places]), ratings).backward()
            score.step()
            items.zero_grad()
            loss = binary_cross_entropy(self.predict(own[places]), ratings)
            (loss + 10.0 * mse_loss(own, mapped)).backward()
            items.step()
        return own.detach()


def recall_and_ndcg(ranked: list[int], wanted: set[int], k: int = 20) -> tuple[float, float]:
    hits = [item in wanted for item in ranked[:k]]
    gain = sum(1 / np.log2(place + 2) for place, hit in enumerate(hits) if hit)
    ideal = sum(1 / np.log2(place + 2) for place in range(min(k, len(wanted))))
    return sum(hits) / len(wanted), gain / ideal


def plain_ifedrec(folder: Path, seed: int, rounds: int, batch_size: int) -> dict[str, Any]:
    """The published training loop; only the random numbers are the engine's."""
    catalogue = read_catalogue(folder, seed)
    frame = pl.read_csv(folder / "interactions.csv").unique()
    content = torch.from_numpy(theme_features(catalogue.texts))
    places = {split: catalogue.rows(split) for split in ("warm", "validation", "test")}
    row = {s: {catalogue.ids[p]: k for k, p in enumerate(ps)} for s, ps in places.items()}
    lists: dict[str, dict[str, list[int]]] = {s: {} for s in places}
    for user, item in frame.select("user_id", "item_id").iter_rows():
        for split, of in row.items():
            if item in of:
                lists[split].setdefault(user, []).append(of[item])
    warm = content[places["warm"]]
    content = (content - warm.mean(0)) / warm.numpy().std()

    settings = RunSettings.parse({**PUBLISHED, "seed": seed, "batch_size": batch_size})
    users = sorted(lists["warm"])
    keys = {user: user_keys(f"snowdrop simulation {seed}".encode(), [user]) for user in users}
    clients = {}
    for user in users:
        fresh = HEADS["linear"].fresh(keys[user], settings)
        clients[user] = Client(fresh["weight"][0], fresh["bias"][0])
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(len(warm), settings.dim, generator=draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(24, 300), nn.ReLU(), nn.Linear(300, settings.dim), nn.Tanh()
        )
    adam = torch.optim.Adam(network.parameters(), lr=0.005)

    history = []
    for number in range(1, rounds + 1):
        with torch.no_grad():
            mapped = network(content[places["warm"]])
        tables = []
        for user in users:
            items = np.array(sorted(lists["warm"][user]))
            alone = Ragged(np.array([0, len(items)]), items)
            samples = draw_samples(alone, keys[user], number, 5, len(table))
            order = batch_order(samples, 0)[0]
            batches = [
                (samples.items[0][at], samples.labels[0][at]) for at in order.split(batch_size)
            ]
            tables.append(clients[user].train(table, mapped, batches, 0.1))
        table = torch.stack(tables).mean(0)
        adam.zero_grad()
        mse_loss(network(content[places["warm"]]), table).backward()
        adam.step()
        metrics = {}
        for split in ("validation", "test"):
            with torch.no_grad():
                cold = network(content[places[split]])
                scores = {u: clients[u].predict(cold) for u in users if u in lists[split]}
            results = [
                recall_and_ndcg(s.argsort(descending=True).tolist(), set(lists[split][u]))
                for u, s in scores.items()
            ]
            metrics[split] = tuple(np.mean(results, axis=0))
        history.append(metrics)
    best = max(range(rounds), key=lambda k: (history[k]["validation"][0], -k))
    return {"table": table, "history": history, "best": best}


@pytest.fixture(scope="module")
def expected(data_folder: Path) -> dict[str, Any]:
    return plain_ifedrec(data_folder, SMALL["seed"], SMALL["rounds"], SMALL["batch_size"])


@pytest.mark.parametrize("nodes", [1, 3])
def test_ipfedrec_is_the_published_algorithm(
    data_folder: Path, tmp_path: Path, expected: dict[str, Any], nodes: int
) -> None:
    folders = {"data": str(data_folder), "run_dir": str(tmp_path), "nodes": nodes}
    summary = run_here({**PUBLISHED, **SMALL, **HERE, **folders})
    newest = newest_state(tmp_path / "checkpoint")
    assert newest is not None
    torch.testing.assert_close(newest["table"], expected["table"], atol=1e-4, rtol=1e-4)
    for row, metrics in zip(newest["history"], expected["history"], strict=True):
        assert row["validation_recall@20"] == pytest.approx(metrics["validation"][0])
        assert row["validation_ndcg@20"] == pytest.approx(metrics["validation"][1])
    assert summary["method"] == "IPFedRec"
    assert summary["best_round"] == expected["best"] + 1
    test = expected["history"][expected["best"]]["test"]
    assert (summary["test"]["recall@20"], summary["test"]["ndcg@20"]) == pytest.approx(test)
