"""How well cold items could be ranked by someone who sees all interactions, as a Markdown table.

    python benchmarks/upper_bound.py DATA [DATA ...] [--seeds 3 4 5] [--set KEY=VALUE]

No method that could be deployed: the oracle sees which *other* users interacted with the very items
that are to be ranked, while a new item has no users yet. It predicts each user's cold items from
the user's warm ones, by least squares over all other users (leave-one-out):

    ŷ_u = x_u W,   W = argmin Σ_(v ≠ u) ‖y_v − x_v W‖² / n_v + λ ‖W‖²

with x_v the warm history of user v, n_v its length, and y_v its cold items. No text is read. So it
tells what people have in common, which texts cannot carry to new items without loss. Rows: kernel
ridge on texts alone; how many other users each cold item has; the oracle alone; a share of the
oracle and of texts, both standardised for each user, as `one-round` scores. λ and the share are
chosen on validation items, as nodes would.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse import csr_array
from torch import Tensor

from cli.assignments import parse_assignments
from cli.in_process import InProcessGrid
from cli.simulate import check_data
from client_app import tasks
from client_app.history import weight_scores
from client_app.interactions import load_interactions
from client_app.node import Node
from client_app.ranking import evaluate_forms
from client_app.scorers import standardised
from common.catalogue import COLD_SPLITS
from common.device import pick_device
from common.methods.kernel_ridge import KernelRidgeSettings
from common.settings import RunSettings
from common.users.ragged import Ragged
from server_app.items import load_catalogue, world_of
from server_app.methods.base import World
from server_app.methods.kernel_ridge import text_units, text_weights

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
POPULAR = math.inf
"""In place of λ, where all other users count alike."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TEXTS = "kernel ridge on texts"
ROWS = {
    TEXTS: [(POPULAR, 0.0)],
    "popularity, seen": [(POPULAR, 1.0)],
    "oracle": [(ridge, 1.0) for ridge in RIDGES],
    "oracle and texts": [(ridge, share) for ridge in RIDGES for share in SHARES],
}
"""What is seen, as pairs of a λ and a share of the oracle."""
METRICS = ("recall@20", "ndcg@20")


def rows_of(lists: Ragged, items: int) -> csr_array:
    """Lists of items as 0/1 rows, float32 (users, items)."""
    ones = np.ones(len(lists.items), np.float32)
    return csr_array((ones, lists.items, lists.offsets), shape=(len(lists.counts), items))


class OthersInteractions:
    """The oracle's scores, for every λ from one decomposition.

    With rows divided by √n, K = X Xᵀ = V diag(s) Vᵀ over users and H = K (K + λ I)⁻¹, least
    squares predicts H Y. Leaving user u out changes the row of u to Σ_(v ≠ u) H_uv y_v, up to a
    factor of the user that changes no ranking.

    Parameters
    ----------
    histories : Ragged
        Warm items of each user, at least one.
    warm : int
    """

    def __init__(self, histories: Ragged, warm: int) -> None:
        self._roots = np.sqrt(histories.counts).astype(np.float32)[:, None]
        x = rows_of(histories, warm).multiply(1 / self._roots).tocsr()
        self._sizes, self._vectors = eigh((x @ x.T).toarray(), overwrite_a=True, driver="evd")

    def scores(self, truth: Ragged, items: int, ridge: float) -> np.ndarray:
        """Float32 (users, items), of the items whose users are ``truth``."""
        y = rows_of(truth, items).toarray()
        if ridge == POPULAR:
            return y.sum(0) - y
        y /= self._roots
        kept = np.maximum(self._sizes, 0)
        kept /= kept + ridge
        own = np.square(self._vectors) @ kept
        return self._vectors @ (kept[:, None] * (self._vectors.T @ y)) - own[:, None] * y


@dataclass(frozen=True, eq=False)
class Whole:
    """What the server and one node with all users know together."""

    world: World
    keys: np.ndarray
    """Of users' randomness, uint64 (users,)."""
    histories: Ragged
    rankings: dict[str, tasks.Ranking]
    """Of each cold split."""

    @classmethod
    def read(cls, data: str, seed: int, more: dict[str, object]) -> "Whole":
        """A data set with the split of a seed."""
        with tempfile.TemporaryDirectory() as folder:
            given = {"data": data, "seed": seed, "run_dir": folder, "nodes": 1, **more}
            settings = RunSettings.parse(given)
            settings = settings.model_copy(update={"data": check_data(settings)})
            catalogue = load_catalogue(settings)
            world = world_of(settings, catalogue, pick_device("cpu"))
            node = Node(InProcessGrid(1, settings.flat()).context(0))
            own = load_interactions(node.settings, settings.data, seed, world.catalogue, None)
            keys = node.keys(own)
        histories = tasks.histories(settings.task, own, keys, settings.history)
        rankings = {
            split: tasks.ranking(settings.task, split, catalogue, own, keys)
            for split in COLD_SPLITS
        }
        return cls(world, keys, histories, rankings)


@dataclass(frozen=True, eq=False)
class People:
    """A data set with the split of a seed, seen whole."""

    histories: Ragged
    rankings: dict[str, tasks.Ranking]
    texts: dict[str, Tensor]
    """C of the items of each cold split, float32 (items, warm)."""
    warm: int

    @classmethod
    def read(cls, data: str, seed: int, more: dict[str, object]) -> "People":
        """What one node with all users and the server know together."""
        whole = Whole.read(data, seed, more)
        world, kernel = whole.world, KernelRidgeSettings()
        weights = torch.from_numpy(text_weights(world, kernel, text_units(world, kernel)))
        bound = len(world.rows(COLD_SPLITS[0]))
        texts = dict(zip(COLD_SPLITS, torch.tensor_split(weights, [bound]), strict=True))
        return cls(whole.histories, whole.rankings, texts, len(world.rows("warm")))

    def measure(
        self, split: str, oracle: OthersInteractions, forms: list[tuple[float, float]]
    ) -> list[dict[str, float]]:
        """Means over users of each metric, for each pair of a λ and a share of the oracle."""
        ranking = self.rankings[split]
        seen = {
            ridge: oracle.scores(ranking.truth, ranking.items, ridge)
            for ridge in dict.fromkeys(ridge for ridge, _ in forms)
        }

        def scores(users: np.ndarray) -> Iterator[Tensor]:
            texts = standardised(weight_scores(self.histories.take(users), self.texts[split]))
            for ridge, share in forms:
                others = standardised(torch.from_numpy(seen[ridge][users]))
                yield (1 - share) * texts + share * others

        count, sums = evaluate_forms(ranking, scores, len(forms))
        return [{name: total / count for name, total in each.items()} for each in sums]


def measured(data: str, seed: int, more: dict[str, object]) -> dict[str, dict[str, float]]:
    """Test metrics of each row, with the λ and the share that validation items chose."""
    people = People.read(data, seed, more)
    oracle = OthersInteractions(people.histories, people.warm)
    found = {}
    for row, forms in ROWS.items():
        validated = people.measure("validation", oracle, forms)
        best = max(range(len(forms)), key=lambda at: sum(validated[at][m] for m in METRICS))
        (tested,) = people.measure("test", oracle, [forms[best]])
        ridge, share = forms[best]
        found[row] = {**{m: tested[m] for m in METRICS}, "λ": ridge, "share": share}
    return found


def cell(values: list[float], scale: float, digits: int) -> str:
    """Mean ± standard deviation."""
    spread = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * fmean(values):.{digits}f}{spread}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[3, 4, 5])
    parser.add_argument("--set", nargs="+", default=[], dest="settings", metavar="KEY=VALUE")
    options = parser.parse_args()
    more = parse_assignments(options.settings)
    print("| data | what is seen | recall@20 | ndcg@20 | recall@20 ÷ kernel ridge | λ | share |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for data in options.data:
        runs = [measured(data, seed, more) for seed in options.seeds]
        level = fmean(run[TEXTS]["recall@20"] for run in runs)
        for row in ROWS:
            told = {name: [run[row][name] for run in runs] for name in runs[0][row]}
            times = fmean(told["recall@20"]) / level
            chosen = [cell(told[x], 1, 2) if len(ROWS[row]) > 1 else "" for x in ("λ", "share")]
            cells = [Path(data).name, row, *(cell(told[m], 100, 2) for m in METRICS),
                     f"{times:.3f}", *chosen]  # fmt: skip
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
