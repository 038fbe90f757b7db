"""Users' lists: those that a comparison wrote down, and those that a simulation's nodes keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from client_app.interactions import NodeInteractions, load_interactions
from client_app.lists import FILE
from common.catalogue import COLD_SPLITS, Catalogue
from common.errors import SnowdropError
from common.settings import NodeSettings, RunSettings
from server_app.items import load_catalogue
from server_app.run_folder import SAMPLE

SAMPLE_USERS = 4
SHOWN_HISTORY = 8
SHOWN_ITEMS = 8
_SHORTEST_HISTORY = 3


@dataclass(frozen=True)
class Shown:
    """An item in a user's list; ``score`` and ``hit`` only where it was recommended."""

    title: str
    score: float | None = None
    hit: bool = False


@dataclass(frozen=True)
class Sample:
    """A user's history beside the recommendations."""

    name: str
    history: list[Shown]
    recommended: list[Shown]
    history_length: int


def told_sample(users: Sequence[Mapping[str, Any]], folder: Path) -> list[Sample]:
    """The users that ``sample.json`` holds.

    Parameters
    ----------
    users : Sequence[Mapping[str, Any]]
        What `RunFolder.read_sample` returned.
    folder : Path
        Of the run, for an error.

    Raises
    ------
    SnowdropError
        If a user lacks what a comparison writes.
    """
    try:
        return [
            Sample(
                name=_letter(k),
                history=[Shown(str(title)) for title in user["history"][:SHOWN_HISTORY]],
                recommended=[
                    Shown(str(item["title"]), float(item["score"]), bool(item["hit"]))
                    for item in user["recommended"][:SHOWN_ITEMS]
                ],
                history_length=int(user["history_length"]),
            )
            for k, user in enumerate(users[:SAMPLE_USERS])
        ]
    except (KeyError, TypeError, ValueError):
        raise SnowdropError(
            f"{folder / SAMPLE} is damaged: each user must have 'history', "
            "'history_length' and 'recommended'"
        ) from None


@dataclass(frozen=True, eq=False)
class Kept:
    """What the nodes of a simulation keep, beside its data and titles."""

    data: NodeInteractions
    catalogue: Catalogue
    lists: pl.DataFrame

    @classmethod
    def read(cls, folder: Path, settings: RunSettings) -> Self | None:
        """The lists of a run; None where it has none, or its data is no longer there."""
        files = sorted((folder / "nodes").glob(f"*/{FILE}"))
        if not files:
            return None
        try:
            catalogue = load_catalogue(settings)
            node = NodeSettings(state_dir=folder, partition=0, partitions=1)
            data = load_interactions(node, settings.data, settings.seed, catalogue.index())
            lists = pl.concat([pl.read_parquet(file) for file in files])
        except (SnowdropError, pl.exceptions.PolarsError, OSError):
            return None
        return cls(data, catalogue, lists)

    def recall(self) -> pl.DataFrame | None:
        """One row per user: ``history`` and the recall of the kept list over all cold items."""
        if self.lists.is_empty():
            return None
        top = self.lists["rank"].to_numpy().max()
        history = pl.DataFrame(
            {"user_id": self.data.users, "history": self.data.warm.counts},
            schema={"user_id": pl.String, "history": pl.Int64},
        )
        kept = self.lists.select("user_id", "item_id", pl.lit(1.0).alias("hit"))
        return (
            self._cold_pairs()
            .join(kept, on=["user_id", "item_id"], how="left")
            .group_by("user_id", maintain_order=True)
            .agg(pl.col("hit").fill_null(0.0).mean().alias(f"recall@{top}"))
            .join(history, on="user_id", how="inner")
            .drop("user_id")
        )

    def sample(self) -> list[Sample]:
        """A few users, drawn at random, whose recommendations can be right."""
        data = self.data
        cold = sum(data.by_split[split].counts for split in COLD_SPLITS)
        able = np.flatnonzero((data.warm.counts >= _SHORTEST_HISTORY) & (cold > 0))
        drawn = np.random.default_rng(0).permutation(able)[:SAMPLE_USERS]
        texts = dict(zip(self.catalogue.ids, self.catalogue.texts, strict=True))
        sample = []
        for k, user in enumerate(drawn.tolist()):
            history = self._items(user, "warm")
            truth = {item for split in COLD_SPLITS for item in self._items(user, split)}
            kept = self.lists.filter(pl.col("user_id") == data.users[user]).sort("rank")
            recommended = [
                Shown(
                    texts.get(row["item_id"], row["item_id"]),
                    row["score"],
                    row["item_id"] in truth,
                )
                for row in kept.head(SHOWN_ITEMS).iter_rows(named=True)
            ]
            shown = [Shown(texts[item]) for item in history[:SHOWN_HISTORY]]
            sample.append(Sample(_letter(k), shown, recommended, len(history)))
        return sample

    def _items(self, user: int, split: str) -> list[str]:
        """Ids of a user's items of a split."""
        ids = self.catalogue.ids_of(split)
        return [ids[row] for row in self.data.by_split[split].of(user)]

    def _cold_pairs(self) -> pl.DataFrame:
        """``user_id`` and ``item_id`` of everything cold that a user interacted with."""
        parts = []
        users = np.asarray(self.data.users, dtype=object)
        for split in COLD_SPLITS:
            lists = self.data.by_split[split]
            ids = np.asarray(self.catalogue.ids_of(split), dtype=object)
            parts.append(
                pl.DataFrame(
                    {"user_id": np.repeat(users, lists.counts), "item_id": ids[lists.items]},
                    schema={"user_id": pl.String, "item_id": pl.String},
                )
            )
        return pl.concat(parts)


def _letter(user: int) -> str:
    return f"User {'ABCDEFGH'[user]}"
