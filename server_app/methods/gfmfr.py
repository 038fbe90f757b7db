"""GFMFR's server half: what groups of users share, fused with what items are, teaches a backbone.

Zhang, Zhang, Long, Xue, Xia and Yang, "Multimodal-enhanced Federated Recommendation: A Group-wise
Fusion Approach", WWW 2026 (arXiv 2509.19955). After a round, each group g has a mean item table C_g
and a mean scorer f_g. A network learns fused item embeddings, Q_g ≈ C_g, from the group and the
items' texts and images, and the group's users are told t_gi = σ(f_g(Q_gi) / T) of every item.

The published server clusters the uploaded parameters of single users. This one is sent sums over
the users of a group.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from common import methods
from common.catalogue import ItemIndex
from common.methods.gfmfr import GFMFRSettings
from server_app.aggregation import Expected, Summed
from server_app.fused import FusedGroups
from server_app.methods.backbone import Backbone
from server_app.methods.base import Scoring, Trained, World


class GFMFR(Trained):
    """A backbone, and what teaches its users.

    Parameters
    ----------
    name : str
        Of the method's card.
    world : World
    """

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world = name, world
        self.own: GFMFRSettings = world.settings.group(name)
        half = methods.load(methods.card(self.own.backbone).server)
        self.backbone: Backbone = half(self.own.backbone, world)
        self.fused: FusedGroups | None = None
        self.teacher: Tensor | None = None  # float32 (groups, warm)
        if self.own.fusion != "off":
            self.fused = FusedGroups(name, self.own.fusion, self.backbone.own.shared, world)

    @property
    def fitted_round(self) -> int:
        return self.backbone.fitted_round

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = self.backbone.arrays()
        if self.fused is not None:
            arrays["centroids"] = self.fused.centroids.numpy()
            if self.teacher is not None:
                arrays["teacher"] = self.teacher.numpy()
        return arrays

    def expected(self) -> dict[str, Expected]:
        expected = self.backbone.expected()
        return expected if self.fused is None else self.fused.expected(expected)

    def step(self, summed: Summed) -> None:
        if self.fused is None:
            self.backbone.step(summed)
            return
        table, scorer = self.backbone.table, self.backbone.scorer
        whole, by_group = self.fused.apart(summed, list(self.backbone.expected()))
        self.backbone.step(whole)
        if summed.users and self.world.settings.server_lr:
            self.fused.learn(summed, by_group, table, scorer, self.backbone.round)

    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        begin = time.perf_counter()
        if self.fused is None or (loss := self.fused.fit(number)) is None:
            return {}
        self._teach()
        return {"generator_loss": loss, "generator_seconds": time.perf_counter() - begin}

    def fits_in(self, coming: Sequence[tuple[int, bool]]) -> int:
        fits = self.fused is not None and self.world.settings.server_lr > 0
        return len(coming) if fits else 0

    def _teach(self) -> None:
        """What each group's users are told of today's items."""
        self.teacher = None
        if self.fused is not None and self.fused.scorers is not None:
            scores = self.fused.scores(self.fused.scorers, "warm")
            self.teacher = (scores / self.own.temperature).sigmoid()

    def scoring(self, splits: Sequence[str]) -> Scoring:
        return replace(self.backbone.scoring(splits), method=self.name)

    def state(self) -> dict[str, Any]:
        own = {} if self.fused is None else self.fused.state()
        return self.backbone.state() | own

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        self.backbone.restore(state, former)
        if self.fused is not None:
            self.fused.restore(state)
            self._teach()

    def move(self, world: World) -> None:
        self.world, self.backbone = world, self.backbone.moved_to(world)
        if self.fused is not None:
            self.fused = self.fused.moved_to(world)
            self._teach()
