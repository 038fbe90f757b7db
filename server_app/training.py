"""The server's side of one training: item table, generator, features, and what has happened."""

import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.features import FeatureTransform
from server_app.generators import GENERATORS, Generator
from server_app.generators.neighbours import mean_of_nearest

log = logging.getLogger("snowdrop")

SNAPSHOT_ITEMS = 1_000
"""Items of each kind whose embeddings are kept for the plots."""


@dataclass(eq=False)
class Training:
    """One learning history, from its first round on, however often it is resumed."""

    id: str
    index: ItemIndex
    settings: RunSettings
    features: Tensor  # float32 (items, c), in catalogue order
    transform: FeatureTransform
    table: Tensor  # float32 (warm, d)
    generator: Generator
    rows: dict[str, np.ndarray]  # places of each split's items in the catalogue
    round: int = 0
    fitted_round: int = 0
    best_round: int = 0
    best_recall: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, settings: RunSettings, index: ItemIndex, features: np.ndarray, device: torch.device
    ) -> Self:
        """A new training with a random id.

        Parameters
        ----------
        settings : RunSettings
        index : ItemIndex
        features : ndarray, float32 (items, c)
            Modality features in catalogue order.
        device : torch.device
        """
        rows = {split: index.rows(split) for split in ("warm", "validation", "test")}
        transform = FeatureTransform.fit(features[rows["warm"]], settings)
        everything = torch.from_numpy(features)
        training = cls(
            id=secrets.token_hex(16),
            index=index,
            settings=settings,
            features=everything,
            transform=transform,
            table=torch.empty(0, settings.dim),
            generator=make_generator(settings.generator, transform, settings, device),
            rows=rows,
        )
        training.table = training._own_start()
        return training

    def _own_start(self) -> Tensor:
        """The item table before anybody has trained it, float32 (warm, d)."""
        if self.settings.table_start == "features":
            return self._own_embeddings("warm")
        draw = torch.Generator().manual_seed(self.settings.seed)
        return torch.randn(len(self.rows["warm"]), self.settings.dim, generator=draw)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave, from a checkpoint of the same or a smaller catalogue.

        An item that has become warm since starts from the embedding that the generator makes of
        it; the best round is then sought anew, since other items are ranked.

        Raises
        ------
        SnowdropError
            If the checkpoint was made with other settings, or is of other items.
        """
        began = state["settings"]
        for name in _IDENTITY:
            if name in began and getattr(self.settings, name) != began[name]:
                raise SnowdropError(
                    f"the checkpoint was made with {name} = {began[name]!r}, these settings say "
                    f"{getattr(self.settings, name)!r}; resume with the settings it began with"
                )
        self.transform = FeatureTransform(**state["transform"])
        self.generator.load_state_dict(state["generator"])
        for name in _PLAIN_FIELDS:
            setattr(self, name, state[name])
        former = former_index(state)
        if former.version != self.index.version:
            self._grow(former)

    def _grow(self, former: ItemIndex) -> None:
        row_of = {item: row for row, item in enumerate(former.ids_of("warm"))}
        rows = torch.tensor([row_of.get(item, -1) for item in self.index.ids_of("warm")])
        known = rows >= 0
        if 2 * int(known.sum()) < len(row_of):
            raise SnowdropError(
                f"of the {len(row_of)} warm items of the checkpoint, the catalogue has only "
                f"{int(known.sum())} as warm: it is another one; give the same data, or another "
                "run_dir"
            )
        table = self._own_start()
        table[known] = self.table[rows[known]]
        self.table = table
        if self.fitted_round:
            self.table[~known] = self.cold_table("warm", known=known)[~known]
        self.best_round, self.best_recall = 0, -1.0
        log.info(
            "the catalogue has changed: %d items have become warm, %d are cold",
            int((~known).sum()),
            len(self.index.ids) - len(rows),
        )

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        plain = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        return plain | {
            "ids": list(self.index.ids),
            "splits": list(self.index.splits),
            "settings": self.settings.model_dump(mode="json"),
            "transform": self.transform.state(),
            "generator": self.generator.state_dict(),
        }

    def fit(self, generator: Generator) -> tuple[float, float]:
        """Train a generator on today's item table; its loss and the seconds it took."""
        start = time.perf_counter()
        target = self.table
        if generator.learns_change:
            target = target - self._own_embeddings("warm")
        loss = generator.fit(target, self.conditions("warm"), self._seed())
        return loss, time.perf_counter() - start

    def cold_table(
        self, split: str, generator: Generator | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Embeddings of the cold items of a split, float32 (cold, d).

        What the training's generator makes, averaged with the warm items most similar in text by
        ``neighbour_share``, of those that are ``known``, bool (warm,); a generator given here is
        heard alone.
        """
        maker = generator or self.generator
        made = maker.generate(self.conditions(split), self._seed())
        if maker.learns_change:
            made = made + self._own_embeddings(split)
        share = self.settings.neighbour_share if generator is None else 0.0
        if share:
            rows = slice(None) if known is None else known
            near = mean_of_nearest(
                self.conditions(split),
                self.conditions("warm")[rows],
                self.table[rows],
                self.settings.neighbours,
            )
            made = (1 - share) * made + share * near
        return made

    def conditions(self, split: str) -> Tensor:
        """Conditions of the items of a split, float32 (items, c)."""
        return self.transform.conditions(self.features[self.rows[split]])

    def _own_embeddings(self, split: str) -> Tensor:
        return self.transform.embeddings(self.features[self.rows[split]])

    def snapshot(self) -> None:
        """Keep some warm and generated embeddings of this round for the plots."""
        self.snapshots[self.round] = {
            "warm": _some(self.table),
            "cold": _some(self.cold_table("test")),
        }

    def _seed(self) -> int:
        return self.settings.seed * 1_000_003 + self.round


_IDENTITY = (
    "dim",
    "encoder",
    "pooling",
    "max_tokens",
    "head",
    "table_start",
    "whitening",
    "condition_dim",
    "generator",
    "generator_target",
    "generator_optimizer",
    "denoiser",
    "denoiser_width",
    "mapping_width",
    "attention",
    "guidance",
)
"""Settings that a training cannot change when it is resumed."""

_PLAIN_FIELDS = (
    "id",
    "table",
    "round",
    "fitted_round",
    "best_round",
    "best_recall",
    "history",
    "snapshots",
)


def former_index(state: dict[str, Any]) -> ItemIndex:
    """The catalogue that a checkpoint was made with."""
    return ItemIndex(tuple(state["ids"]), tuple(state["splits"]))


def make_generator(
    name: str, transform: FeatureTransform, settings: RunSettings, device: torch.device
) -> Generator:
    """The generator of that name, for item embeddings and conditions of the transform's sizes."""
    return GENERATORS[name](settings.dim, transform.condition_size, settings, device)


def _some(rows: Tensor) -> Tensor:
    step = max(1, len(rows) // SNAPSHOT_ITEMS)
    return rows[::step].clone()
