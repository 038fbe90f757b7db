"""What a run leaves for a comparison: its users' results, its embeddings, a few users' lists.

Made after the run, from the state that the simulated nodes and the server kept. Users are numbers:
no id leaves the nodes' folders.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import normalize

from client_app.evaluation import (
    ContentProfileScorer,
    HeadScorer,
    RandomScorer,
    Scorer,
    ranked_hits,
)
from client_app.interactions import NodeInteractions, load_interactions
from client_app.negatives import user_keys
from client_app.scoring import HEADS
from client_app.store import StateStore
from common.catalogue import COLD_SPLITS, Catalogue
from common.durable import write_atomic
from common.metrics import metric_values, rank
from common.settings import KS, NodeSettings, RunSettings
from server_app import app as server_app
from server_app.checkpoint import Checkpoints
from server_app.modality import pick_device
from server_app.report import in_two_dimensions
from server_app.training import Training

SHOWN_METRICS = ("recall@20", "ndcg@20")
SAMPLE_USERS = 5
SAMPLE_TITLES = 10
TITLE_LENGTH = 100
_SHORTEST_HISTORY = 3


@dataclass(frozen=True, eq=False)
class Ended:
    """A run after its end, with both sides' state of the best round."""

    catalogue: Catalogue
    data: NodeInteractions
    training: Training
    test_scorer: Scorer
    snapshots: dict[int, dict[str, Tensor]]

    @classmethod
    def read(
        cls, folder: Path, settings: RunSettings, summary: dict[str, Any], scorer: str
    ) -> "Ended":
        """The state that a run with one node kept in its folder."""
        device = pick_device(settings.server_device)
        catalogue = server_app.load_catalogue(settings)
        index = catalogue.index()
        features = server_app.encode(catalogue.texts, settings, device)
        training = Training.begin(settings, index, features, device)
        checkpoints = Checkpoints(folder / "checkpoint")
        try:
            snapshots = (checkpoints.newest() or {}).get("snapshots", {})
            training.restore(checkpoints.load(summary["best_round"] or settings.rounds))
        finally:
            checkpoints.close()
        node = NodeSettings.parse({"partition-id": 0, "num-partitions": 1}, settings)
        data = load_interactions(node, settings.data, settings.seed, index)
        store = StateStore(node.state_dir)
        keys = user_keys(store.secret(node.secret_seed), data.users)
        scoring: Scorer
        if scorer == "random":
            scoring = RandomScorer(keys, len(training.rows["test"]))
        elif scorer == "content-profile":
            scoring = ContentProfileScorer(
                data.warm,
                training.features[training.rows["warm"]],
                training.features[training.rows["test"]],
            )
        else:
            shared = settings.training()
            fresh = HEADS[settings.head].fresh(keys, shared)
            _, state = store.load(training.id, training.round, data, fresh)
            scoring = HeadScorer(state, training.cold_table("test"), shared)
        return cls(catalogue, data, training, scoring, snapshots)


def write_artefacts(
    folder: Path, settings: RunSettings, summary: dict[str, Any], scorer: str
) -> list[dict[str, Any]]:
    """Write ``users.parquet`` and ``embeddings.npz``; what ``sample.json`` shall hold.

    Parameters
    ----------
    folder : Path
        Of a run with one node that has ended.
    settings : RunSettings
    summary : dict
    scorer : str
        Who ranks: 'head', 'content-profile' or 'random'.
    """
    ended = Ended.read(folder, settings, summary, scorer)
    buffer = io.BytesIO()
    user_results(ended).write_parquet(buffer)
    write_atomic(folder / "users.parquet", buffer.getvalue())
    if scorer == "head":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **embeddings(ended))  # type: ignore[arg-type]
        write_atomic(folder / "embeddings.npz", buffer.getvalue())
    return sample(ended)


def user_results(ended: Ended) -> pl.DataFrame:
    """A row a test user: ``user`` (a number), ``history``, ``similarity``, recall and NDCG.

    ``similarity`` is the mean over the user's test items of the cosine to the most similar warm
    item, in modality features centred on the warm items.
    """
    training, data = ended.training, ended.data
    warm = training.features[training.rows["warm"]]
    centre = warm.mean(0)
    cosines = (
        normalize(training.features[training.rows["test"]] - centre) @ normalize(warm - centre).T
    )
    nearest = cosines.amax(1).double().numpy()
    frames = []
    order = _tie_order(ended.catalogue, "test")
    for users, hits, relevant in ranked_hits(data, "test", order, ended.test_scorer):
        own = data.by_split["test"].take(users)
        values = metric_values(hits, relevant, KS)
        frames.append(
            pl.DataFrame(
                {
                    "user": users,
                    "history": data.warm.counts[users],
                    "similarity": np.add.reduceat(nearest[own.items], own.offsets[:-1])
                    / own.counts,
                    **{name: values[name].numpy() for name in SHOWN_METRICS},
                }
            )
        )
    return pl.concat(frames)


def embeddings(ended: Ended) -> dict[str, np.ndarray]:
    """Embeddings of the best round, float32 (items, d), and snapshots in two dimensions.

    ``warm``, ``cold`` (generated, test), ``cold_validation``; where the item table starts from
    features, ``own_cold`` and ``own_cold_validation``: the items' own; ``snapshot_<round>_warm``
    and ``…_cold``: float32 (items, 2).
    """
    training = ended.training
    arrays = {"warm": training.table}
    for split, suffix in (("test", ""), ("validation", "_validation")):
        if len(training.rows[split]):
            arrays[f"cold{suffix}"] = training.cold_table(split)
            if training.settings.table_start == "features":
                own = training.transform.embeddings(training.features[training.rows[split]])
                arrays[f"own_cold{suffix}"] = own
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
    data, catalogue = ended.data, ended.catalogue
    able = np.flatnonzero(
        (data.by_split["test"].counts > 0) & (data.warm.counts >= _SHORTEST_HISTORY)
    )
    users = np.sort(np.random.default_rng(0).permutation(able)[:SAMPLE_USERS])
    if not len(users):
        return []
    texts = {split: _texts(catalogue, split) for split in ("warm", *COLD_SPLITS)}
    scores = ended.test_scorer(users)
    best = rank(scores, _tie_order(catalogue, "test"), SAMPLE_TITLES).numpy()
    shown = []
    for user, own, items in zip(users, scores.numpy(), best, strict=True):
        truth = set(data.by_split["test"].of(user).tolist())
        history = data.warm.of(user).tolist()
        shown.append(
            {
                "user": int(user),
                "history_length": len(history),
                "history": [texts["warm"][item] for item in history[:SAMPLE_TITLES]],
                "recommended": [
                    {
                        "title": texts["test"][item],
                        "score": float(own[item]),
                        "hit": item in truth,
                    }
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


def _tie_order(catalogue: Catalogue, split: str) -> Tensor:
    """Place of each item of a split in the order of ids, int64 (items,)."""
    return torch.from_numpy(np.argsort(np.argsort(np.asarray(catalogue.ids_of(split)))))
