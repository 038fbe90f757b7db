"""Group fusion's server half: embeddings of new items by what GFMFR fuses for groups of users.

Zhang, Zhang, Long, Xue, Xia and Yang, "Multimodal-enhanced Federated Recommendation: A Group-wise
Fusion Approach", WWW 2026 (arXiv 2509.19955), fuse an embedding of each item for each group of
users, and let it teach users about items that were trained. The fused embedding needs no
interaction, so here it stands for items that nobody has touched: with o_i an item's own features as
an embedding, o_i + Q_gi, where Q_g is trained towards C_g − o on the warm items.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.catalogue import ItemIndex
from common.methods.group_fusion import GroupFusionSettings
from server_app.aggregation import Expected, Summed
from server_app.fused import FusedGroups
from server_app.methods.base import Generator, Scoring, World
from server_app.methods.own_features import OwnFeatures
from server_app.methods.table import ItemTable


class GroupFusion(ItemTable):
    """An item table as all have it, and embeddings of new items for each group.

    Parameters
    ----------
    name : str
        Of the method's card.
    world : World
    """

    trains_synthetic = False

    def __init__(self, name: str, world: World) -> None:
        super().__init__(OwnFeatures, name, world)
        own: GroupFusionSettings = world.settings.group(name)
        self.fused = FusedGroups(name, own.fusion, (), world)

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | {"centroids": self.fused.centroids.numpy()}

    def expected(self) -> dict[str, Expected]:
        return self.fused.expected(super().expected())

    def step(self, summed: Summed) -> None:
        table = self.table
        whole, by_group = self.fused.apart(summed, list(super().expected()))
        super().step(whole)
        if summed.users and self.settings.server_lr:
            self.fused.learn(summed, by_group, table, torch.zeros(1, 0), self.round)

    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        self._fitted_round = number
        return self.fused.prepared(number, self.own_embeddings("warm"))

    def fits_in(self, coming: Sequence[tuple[int, bool]]) -> int:
        return self.fused.fits_in(coming)

    def cold_tables(self, splits: Sequence[str]) -> Tensor:
        """Embeddings of the items of some splits for each group, float32 (groups, cold, d)."""
        made = torch.cat([self.own_embeddings(split) for split in splits])
        tables = made.expand(len(self.fused.centroids), -1, -1)
        scorers = self.fused.scorers
        if scorers is None:
            return tables
        fused = torch.cat([self.fused.embeddings(scorers, split) for split in splits], 1)
        return tables + fused

    def cold_table(
        self, splits: str | Sequence[str], generator: Generator[Any] | None = None
    ) -> Tensor:
        """What a generator makes; or without one, the mean over groups, float32 (cold, d)."""
        if generator is not None:
            return super().cold_table(splits, generator)
        return self.cold_tables([splits] if isinstance(splits, str) else splits).mean(0)

    def scoring(self, splits: Sequence[str], generator: Generator[Any] | None = None) -> Scoring:
        if generator is not None or list(splits) == ["warm"]:
            return super().scoring(splits, generator)
        tables = self.cold_tables(splits).flatten(0, 1)
        arrays = {"items": tables.numpy(), "centroids": self.fused.centroids.numpy()}
        return Scoring("own-group", arrays, self.name)

    def state(self) -> dict[str, Any]:
        return super().state() | self.fused.state()

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        self.fused.restore(state)
        super().restore(state, former)

    def move(self, world: World) -> None:
        self.fused = self.fused.moved_to(world)
        super().move(world)
