"""GFMFR's server half: what groups of users share, fused with what items are, teaches a backbone.

Zhang, Zhang, Long, Xue, Xia and Yang, "Multimodal-enhanced Federated Recommendation: A Group-wise
Fusion Approach", WWW 2026 (arXiv 2509.19955). After a round, each group g has a mean item table C_g
and a mean scorer f_g. A network learns fused item embeddings, Q_g ≈ C_g, from the group and the
items' texts and images, and the group's users are told t_gi = σ(f_g(Q_gi) / T) of every item.

The published server clusters the uploaded parameters of single users. This one is sent sums over
the users of a group.

With the federation switched off (``server_lr = 0``) nothing can be fused. Users then score by their
own histories among the items' own features, which need no federation.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from common import methods
from common.catalogue import ItemIndex
from common.methods.gfmfr import HISTORY_WEIGHTS, GFMFRSettings
from server_app.aggregation import Expected, Summed
from server_app.fused import FusedGroups
from server_app.methods.backbone import Backbone
from server_app.methods.base import Scoring, Trained, World

log = logging.getLogger("snowdrop")

ALONE = 1000.0
"""The weight ω with which users' histories alone decide. It is tried without a federation, where
the backbone scores an item table that nobody has trained."""

UNTRIED = 0.2
"""The weight ω of users' histories where there are no validation items to choose one."""


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
        self.chosen = UNTRIED
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
        fitted = {} if self.fused is None else self.fused.prepared(number)
        if fitted:
            self._teach()
        return fitted

    def fits_in(self, coming: Sequence[tuple[int, bool]]) -> int:
        return 0 if self.fused is None else self.fused.fits_in(coming)

    def trial(self, splits: Sequence[str]) -> Scoring | None:
        return self._with_history(splits, self._tried if self.own.history_weight < 0 else ())

    def choose(self, tried: Sequence[Mapping[str, float]], users: int) -> None:
        """The weight ω with the best sum of HR@50 and NDCG@50, of equal ones the smallest."""
        values = [form["recall@50"] + form["ndcg@50"] for form in tried]
        self.chosen = self._tried[int(np.argmax(values))]
        log.info("validation items chose %s.history_weight = %g", self.name, self.chosen)

    @property
    def _tried(self) -> tuple[float, ...]:
        """The weights ω among which validation items choose."""
        return HISTORY_WEIGHTS if self.world.settings.server_lr else (*HISTORY_WEIGHTS, ALONE)

    def _teach(self) -> None:
        """What each group's users are told of today's items, where the next round weighs it."""
        self.teacher = None
        if not self.own.share_of(self.backbone.round + 1):
            return
        if self.fused is not None and self.fused.scorers is not None:
            scores = self.fused.scores(self.fused.scorers, "warm")
            self.teacher = (scores / self.own.temperature).sigmoid()

    def scoring(self, splits: Sequence[str]) -> Scoring:
        weight = self.chosen if self.own.history_weight < 0 else self.own.history_weight
        mixed = self._with_history(splits, (weight,) if weight else ())
        return mixed or replace(self.backbone.scoring(splits), method=self.name)

    def _with_history(self, splits: Sequence[str], weights: Sequence[float]) -> Scoring | None:
        """The scorer that mixes, with a form for each weight ω; None: there is nothing to mix."""
        if not weights or self.fused is None or (among := self._among(self.fused)) is None:
            return None
        arrays = {
            **self.backbone.scoring(splits).arrays,
            "fused": among.flatten(0, 1).numpy(),
            "centroids": self.fused.centroids.numpy(),
            "weights": np.array([weights], np.float32),
        }
        return Scoring("with-history", arrays, self.name, forms=len(weights))

    def _among(self, fused: FusedGroups) -> Tensor | None:
        """Embeddings among which histories are seen, (groups, warm, d); None: not learnt yet."""
        if not self.world.settings.server_lr:
            return fused.own_embeddings()
        return None if fused.scorers is None else fused.embeddings(fused.scorers, "warm")

    def told(self) -> dict[str, Any]:
        """``groups``: of each, its share of the users, and the items that its teacher prefers."""
        groups = None if self.fused is None else self.fused.preferred()
        return {} if groups is None else {"groups": groups}

    def state(self) -> dict[str, Any]:
        own = {} if self.fused is None else {**self.fused.state(), "history_weight": self.chosen}
        return self.backbone.state() | own

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        self.backbone.restore(state, former)
        if self.fused is not None:
            self.fused.restore(state)
            self.chosen = state.get("history_weight", 0.0)
            self._teach()

    def move(self, world: World) -> None:
        self.world, self.backbone = world, self.backbone.moved_to(world)
        if self.fused is not None:
            self.fused = self.fused.moved_to(world)
            self._teach()
