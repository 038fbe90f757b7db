"""GFMFR's server half: what groups of users share, fused with what items are, teaches a backbone.

Zhang, Zhang, Long, Xue, Xia and Yang, "Multimodal-enhanced Federated Recommendation: A Group-wise
Fusion Approach", WWW 2026 (arXiv 2509.19955). After a round, each group g has a mean item table C_g
and a mean scorer f_g. A network learns fused item embeddings, Q_g ≈ C_g, from the group and the
items' texts and images, and the group's users are told t_gi = σ(f_g(Q_gi) / T) of every item.

The published server clusters the uploaded parameters of single users. This one is sent nothing but
sums over the users of a group, which each user picks for itself (`common.users.groups`).
"""

import logging
import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import methods
from common.catalogue import ItemIndex
from common.methods.gfmfr import GFMFRSettings
from common.users.heads import HEADS
from server_app.aggregation import Expected, Summed
from server_app.features import Blocks
from server_app.fusion import Fusion, Network
from server_app.groups import Merged, merge, next_centroids
from server_app.methods.backbone import Backbone
from server_app.methods.base import Scoring, Trained, World
from server_app.methods.table import overflowed, stepped

log = logging.getLogger("snowdrop")


@dataclass(frozen=True, eq=False)
class Scorers:
    """The mean scorer of each group that is left after merging."""

    merged: Merged
    heads: Tensor  # float32 (kept, n): private parts
    shared: Tensor  # float32 (kept, numbers): the parts that all users share, after their training


class GFMFR(Trained):
    """A backbone, and what teaches its users.

    Parameters
    ----------
    name : str
        Of the method's card.
    world : World
    """

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world, self.settings = name, world, world.settings
        self.own: GFMFRSettings = world.settings.group(name)
        half = methods.load(methods.card(self.own.backbone).server)
        self.backbone: Backbone = half(self.own.backbone, world)
        if not self.fuses:
            return
        head, dim = HEADS[self.settings.head], self.settings.dim
        self._private = [n for n in head.shapes(dim) if n not in self.backbone.own.shared]
        self.centroids = torch.zeros(self.own.groups, head.size(self._private, dim))
        self.scorers: Scorers | None = None
        self.teacher: Tensor | None = None  # float32 (groups, warm)
        self._targets: Tensor | None = None  # float32 (kept, warm, d), from a step to its fit
        self.blocks = world.blocks()
        self.fusion = self._first_fusion()

    @property
    def fuses(self) -> bool:
        """Whether there is anything beside the backbone."""
        return self.own.fusion != "off"

    def _first_fusion(self) -> Fusion:
        own = self.own
        sizes = [len(mean) for mean in self.blocks.means.values()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = Network(own.fusion, own.groups, sizes, self.settings.dim, own.width)
        return Fusion(network, own.optimizer, own.lr, own.weight_decay, self.world.device)

    def _features(self) -> list[Tensor]:
        """Each modality of the warm items, float32 (warm, c), its numbers of variance 1."""
        rows = self.world.rows("warm")
        scaled = self.blocks.scaled(self.world.features)
        return [part[rows] * part.shape[1] ** 0.5 for part in scaled.values()]

    @property
    def fitted_round(self) -> int:
        return self.backbone.fitted_round

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = self.backbone.arrays()
        if self.fuses:
            arrays["centroids"] = self.centroids.numpy()
            if self.teacher is not None:
                arrays["teacher"] = self.teacher.numpy()
        return arrays

    def expected(self) -> dict[str, Expected]:
        """The backbone's sums, for all groups one after the other, and those of the groups."""
        expected = self.backbone.expected()
        if not self.fuses:
            return expected
        groups, numbers = self.centroids.shape
        every = {
            name: replace(one, shape=(groups * one.shape[0], *one.shape[1:]))
            for name, one in expected.items()
        }
        every["heads"] = Expected((groups, numbers), bounded=True)
        every["members"] = Expected((groups,), counts="heads", of_each=True)
        return every

    def step(self, summed: Summed) -> None:
        if not self.fuses:
            self.backbone.step(summed)
            return
        before = self.backbone.table, self.backbone.scorer
        names = self.backbone.expected()
        by_group = {
            name: sums.reshape(self.own.groups, -1, *sums.shape[1:])
            for name, sums in summed.sums.items()
            if name in names
        }
        whole = {name: sums.sum(0) for name, sums in by_group.items()}
        self.backbone.step(replace(summed, sums=whole))
        self._targets = None
        if summed.users and self.settings.server_lr:
            heads, members = (torch.from_numpy(summed.sums[n]) for n in ("heads", "members"))
            self._learn(*before, heads, members, by_group)

    def _learn(
        self,
        table: Tensor,
        scorer: Tensor,
        heads: Tensor,
        members: Tensor,
        by_group: Mapping[str, np.ndarray],
    ) -> None:
        """Take over what the groups' users have sent: centroids, mean scorers, mean item tables.

        Parameters
        ----------
        table, scorer : Tensor
            As the round began with them.
        heads : Tensor, float64 (groups, n)
        members : Tensor, int64 (groups,)
        by_group : Mapping[str, ndarray]
            The backbone's sums, (groups, …).
        """
        merged = merge(heads, members, self.own.least_users)
        if merged is None:
            log.warning(
                "%d users are fewer than %s.least_users = %d: nothing is learnt of them as a group",
                int(members.sum()), self.name, self.own.least_users,
            )  # fmt: skip
            return
        if self.teacher is not None and len(merged.kept) < self.own.groups:
            log.warning(
                "%d of %d groups had fewer than %d users and are merged",
                self.own.groups - len(merged.kept), self.own.groups, self.own.least_users,
            )  # fmt: skip
        counts = merged.summed(members)
        means = (merged.summed(heads) / counts[:, None]).float()
        sums = {name: merged.summed(torch.from_numpy(one)) for name, one in by_group.items()}
        shared = scorer.expand(len(counts), -1)
        if "scorer" in sums:
            change = (sums["scorer"][:, 0] / counts[:, None]).float()
            shared = shared + self.settings.server_lr * change
        tables = [
            stepped(table, Summed(int(count), 0.0, {n: one[k].numpy() for n, one in sums.items()}),
                    self.settings)
            for k, count in enumerate(counts)
        ]  # fmt: skip
        if not torch.isfinite(means).all():
            raise overflowed(self.backbone.round)
        self._targets = torch.stack(tables)
        self.scorers = Scorers(merged, means, shared)
        self.centroids = next_centroids(means, counts, merged, self._seed())

    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        row = self.backbone.prepare(number, validating)
        if not self.fuses or self._targets is None or self.scorers is None:
            return row
        begin = time.perf_counter()
        features = self._features()
        loss = self.fusion.fit(
            self.scorers.merged.kept, self._targets, features, self.own.fit_steps,
            self.own.fit_batch, self._seed(),
        )  # fmt: skip
        self.teacher = self._taught(self.scorers, features)
        seconds = time.perf_counter() - begin
        return row | {"generator_loss": loss, "generator_seconds": seconds}

    def fits_in(self, coming: Sequence[tuple[int, bool]]) -> int:
        fits = self.fuses and self.settings.server_lr > 0
        return len(coming) if fits else self.backbone.fits_in(coming)

    def _taught(self, scorers: Scorers, features: Sequence[Tensor]) -> Tensor:
        """What each group's users are told of the warm items, float32 (groups, warm)."""
        head, dim, shared = HEADS[self.settings.head], self.settings.dim, self.backbone.own.shared
        state = head.parts(scorers.heads, self._private, dim)
        if shared:
            state |= head.parts(scorers.shared, shared, dim)
        made = self.fusion.make(scorers.merged.kept, features)
        scores = torch.cat([head.logits(state, part) for part in made], 1)
        return (scores / self.own.temperature).sigmoid()[scorers.merged.places]

    def scoring(self, splits: Sequence[str]) -> Scoring:
        return replace(self.backbone.scoring(splits), method=self.name)

    def state(self) -> dict[str, Any]:
        state = self.backbone.state()
        if not self.fuses:
            return state
        known = None
        if self.scorers is not None:
            merged, heads, shared = self.scorers.merged, self.scorers.heads, self.scorers.shared
            known = {"into": merged.into, "kept": merged.kept, "heads": heads, "shared": shared}
        return state | {
            "centroids": self.centroids,
            "scorers": known,
            "blocks": self.blocks.state(),
            "fusion": self.fusion.state(),
        }

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        self.backbone.restore(state, former)
        if not self.fuses:
            return
        self.centroids, self.blocks = state["centroids"], Blocks(**state["blocks"])
        self.fusion.restore(state["fusion"])
        self._targets, self.scorers = None, None
        if (known := state["scorers"]) is not None:
            merged = Merged(known["into"], known["kept"])
            self.scorers = Scorers(merged, known["heads"], known["shared"])
        self._teach_anew()

    def _teach_anew(self) -> None:
        """The teacher's preferences of today's items, by the same network and scorers."""
        self.teacher = None
        if self.scorers is not None:
            self.teacher = self._taught(self.scorers, self._features())

    def moved_to(self, world: World) -> "GFMFR":
        moved = copy(self)
        moved.move(world)
        return moved

    def move(self, world: World) -> None:
        """Take another catalogue, in place."""
        self.world, self.settings = world, world.settings
        self.backbone = self.backbone.moved_to(world)
        if self.fuses:
            self._teach_anew()

    def _seed(self) -> int:
        return self.settings.seed * 1_000_003 + self.backbone.round
