"""What a run leaves for a comparison: its users' results, its embeddings, a few users' lists.

Made after the run, from the state that the simulated nodes and the server kept. Users are numbers:
no id leaves the nodes' folders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor
from torch.nn.functional import normalize

from cli.in_process import InProcessGrid
from client_app import tasks
from client_app.interactions import NodeInteractions
from client_app.node import Node
from client_app.ranking import ranked_hits, ranked_scores
from client_app.scorers import Scorer
from client_app.store import StateStore
from client_app.tasks import Ranking
from common.catalogue import Catalogue
from common.device import pick_device
from common.metrics import metric_values, rank
from common.settings import KS, RunSettings
from common.task import candidates, metrics_of_users
from common.users.heads import State
from common.users.ragged import Ragged
from server_app.checkpoint import Checkpoints
from server_app.items import load_catalogue, world_of
from server_app.measure import Task
from server_app.methods import ItemTable
from server_app.nodes import Nodes
from server_app.plots import in_two_dimensions
from server_app.run_folder import RunFolder
from server_app.training import Training

SAMPLE_USERS = 5
SAMPLE_TITLES = 10
TITLE_LENGTH = 100
_SHORTEST_HISTORY = 3


@dataclass(frozen=True, eq=False)
class Ended:
    """A run after its end, with both sides' state of the best round."""

    training: Training
    histories: Ragged
    """What each user learnt from, as rows of the item table."""
    ranking: Ranking
    scorer: Scorer
    snapshots: Mapping[int, dict[str, Tensor]]

    @property
    def catalogue(self) -> Catalogue:
        return self.training.world.catalogue

    @property
    def ranked(self) -> str:
        """The split of the catalogue whose items are ranked to test."""
        return candidates(self.training.settings.task, "test")

    @classmethod
    def read(cls, folder: RunFolder, settings: RunSettings, summary: Mapping[str, Any]) -> "Ended":
        """The state that a run kept in its folder, that of all its nodes' users together."""
        world = world_of(settings, load_catalogue(settings), pick_device(settings.server_device))
        training = Training.begin(world)
        snapshots: Mapping[int, dict[str, Tensor]] = {}
        if training.trained is not None:
            checkpoints = Checkpoints(folder.path / "checkpoint", exclusive=False)
            snapshots = (checkpoints.newest() or {}).get("snapshots", {})
            training.restore(checkpoints.load(summary["best_round"] or settings.rounds))
        grid = InProcessGrid(1, settings.flat())
        node = Node(grid.context())
        node.store = Gathered(InProcessGrid(settings.nodes, settings.flat()), settings.nodes)
        index, data = node.interactions(training.index.version)
        task = Task(settings, Nodes(grid, index, settings.round_timeout))
        scoring = task.scoring(training.method, "test")
        ranked = task.ranked(training, scoring, "test")
        keys = node.keys(data)
        histories = tasks.histories(settings.task, data, keys)
        ranking = tasks.ranking(settings.task, "test", index, data, keys)
        request = task.request(training, [ranked])
        scorer = node.scorer(request, ranked, index, data, ranking.items)
        return cls(training, histories, ranking, scorer, snapshots)


class Gathered(StateStore):
    """What several nodes of a simulation keep, as if one node had all of their users."""

    def __init__(self, grid: InProcessGrid, nodes: int) -> None:
        self._stores = [Node(grid.context(number)).store for number in range(nodes)]
        super().__init__(self._stores[0].folder)

    def load(
        self,
        training: str,
        at_most: int,
        data: NodeInteractions,
        fresh: State,
        or_newer: bool = False,
    ) -> tuple[int, State]:
        found = []
        for store in self._stores:  # each knows its own users alone, and leaves the others be
            number, fresh = store.load(training, at_most, data, fresh, or_newer)
            found.append(number)
        return min(found), fresh


def write_artefacts(
    folder: RunFolder, settings: RunSettings, summary: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Write ``users.parquet`` and ``embeddings.npz``; what ``sample.json`` shall hold.

    Parameters
    ----------
    folder : RunFolder
        Of a run in this process that has ended.
    settings : RunSettings
    summary : Mapping[str, Any]
    """
    ended = Ended.read(folder, settings, summary)
    folder.write_users(user_results(ended))
    if isinstance(ended.training.method, ItemTable):
        folder.write_embeddings(embeddings(ended, ended.training.method))
    return sample(ended)


def user_results(ended: Ended) -> pl.DataFrame:
    """One row per test user: ``user`` (a number), ``history``, ``similarity``, recall and NDCG.

    ``similarity`` is the mean over the user's test items of the cosine to the most similar warm
    item (another one, where warm items are ranked), in text features centred on the warm items.
    """
    world = ended.training.world
    kept = metrics_of_users(ended.training.settings.task)
    text = next(iter(world.features.values()))
    warm = text[world.rows("warm")]
    centre = warm.mean(0)
    cosines = normalize(text[world.rows(ended.ranked)] - centre) @ normalize(warm - centre).T
    if ended.ranked == "warm":
        cosines.fill_diagonal_(-1.0)
    nearest = cosines.amax(1).double().numpy()
    frames = []
    for users, hits, relevant in ranked_hits(ended.ranking, ended.scorer):
        own = ended.ranking.truth.take(users)
        values = metric_values(hits, relevant, KS)
        frames.append(
            pl.DataFrame(
                {
                    "user": users,
                    "history": ended.histories.counts[users],
                    "similarity": np.add.reduceat(nearest[own.items], own.offsets[:-1])
                    / own.counts,
                    **{name: values[name].numpy() for name in kept},
                }
            )
        )
    return pl.concat(frames)


def embeddings(ended: Ended, table: ItemTable) -> dict[str, np.ndarray]:
    """Embeddings of the best round, float32 (items, d), and snapshots in two dimensions.

    ``warm``, ``cold`` (generated, test), ``cold_validation``; where the item table starts from
    features, ``own_cold`` and ``own_cold_validation``: the items' own; ``snapshot_<round>_warm``
    and ``…_cold``: float32 (items, 2).
    """
    arrays = {"warm": table.table}
    for split, suffix in (("test", ""), ("validation", "_validation")):
        if len(ended.catalogue.rows(split)):
            arrays[f"cold{suffix}"] = table.cold_table(split)
            if table.settings.table_start == "features":
                arrays[f"own_cold{suffix}"] = table.own_embeddings(split)
    flat = {name: rows.numpy() for name, rows in arrays.items()}
    if ended.snapshots:
        for number, kinds in in_two_dimensions(ended.snapshots).items():
            flat |= {f"snapshot_{number}_{kind}": points for kind, points in kinds.items()}
    return flat


def sample(ended: Ended) -> list[dict[str, Any]]:
    """Titles of a few users' histories beside those of their best test items.

    The users are drawn with the same seed in every run, so methods on the same split show the
    same people.
    """
    histories, ranking = ended.histories, ended.ranking
    able = np.flatnonzero((ranking.truth.counts > 0) & (histories.counts >= _SHORTEST_HISTORY))
    users = np.sort(np.random.default_rng(0).permutation(able)[:SAMPLE_USERS])
    if not len(users):
        return []
    warm, ranked = (_texts(ended.catalogue, split) for split in ("warm", ended.ranked))
    scores = ranked_scores(ranking, ended.scorer, users)
    best = rank(scores, ranking.order, SAMPLE_TITLES).numpy()
    shown = []
    for user, own, items in zip(users, scores.numpy(), best, strict=True):
        truth = set(ranking.truth.of(user).tolist())
        history = histories.of(user).tolist()
        shown.append(
            {
                "user": int(user),
                "history_length": len(history),
                "history": [warm[item] for item in history[:SAMPLE_TITLES]],
                "recommended": [
                    {"title": ranked[item], "score": float(own[item]), "hit": item in truth}
                    for item in items.tolist()
                ],
            }
        )
    return shown


def _texts(catalogue: Catalogue, split: str) -> list[str]:
    return [
        shorten(catalogue.texts[row], TITLE_LENGTH, placeholder=" …")
        for row in catalogue.rows(split)
    ]
