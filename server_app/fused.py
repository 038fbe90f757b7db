"""What the server learns of groups of users, and the item embeddings that it fuses for each.

Of users it has nothing but sums over those of a group, which each user picks for itself
(`common.users.groups`).
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
from torch.nn.functional import cosine_similarity

from common.methods.fusion import GroupSettings
from common.users.heads import HEADS
from server_app.aggregation import Expected, Summed
from server_app.features import Blocks
from server_app.fusion import Fusion, Network
from server_app.groups import Merged, merge, next_centroids
from server_app.methods.base import World
from server_app.methods.table import first_transform, overflowed, stepped

log = logging.getLogger("snowdrop")

Sums = Mapping[str, np.ndarray]

PREFERRED = 50
"""Items of each group that are told."""


@dataclass(frozen=True, eq=False)
class Scorers:
    """The mean scorer of each group that is left after merging."""

    merged: Merged
    heads: Tensor  # float32 (kept, n): private parts
    shared: Tensor  # float32 (kept, numbers): the parts that all users share, after their training


class FusedGroups:
    """Groups of users, and a network that fuses item embeddings for them.

    Parameters
    ----------
    name : str
        Of the method's card.
    fusion : str
        One of `server_app.fusion.FUSIONS`.
    shared : Sequence[str]
        Parts of the scoring head that all users share; all others are private.
    world : World
    """

    def __init__(self, name: str, fusion: str, shared: Sequence[str], world: World) -> None:
        self.name, self.settings = name, world.settings
        self.own: GroupSettings = world.settings.group(name)
        self._head, dim = HEADS[self.settings.head], self.settings.dim
        self._shared = tuple(shared)
        self._private = tuple(part for part in self._head.shapes(dim) if part not in shared)
        self.centroids = torch.zeros(self.own.groups, self._head.size(self._private, dim))
        self.scorers: Scorers | None = None
        self._shares: Tensor | None = None  # float64 (groups,): of the users, in the last round
        self._moved: dict[str, float] = {}
        self._few = 0  # groups that were merged in the round before
        self._targets: Tensor | None = None  # float32 (kept, warm, d), from sums to their fit
        self._weights: Tensor | None = None  # float32 (kept, warm), of items in that fit
        self.world, self.blocks = world, world.blocks()
        self._features: dict[str, list[Tensor]] = {}
        self._fusion = self._first_fusion(fusion)

    def _first_fusion(self, fusion: str) -> Fusion:
        own = self.own
        sizes = [len(mean) for mean in self.blocks.means.values()]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = Network(fusion, own.groups, sizes, self.settings.dim, own.width)
        return Fusion(network, own.optimizer, own.lr, own.weight_decay, self.world.device)

    def features(self, split: str) -> list[Tensor]:
        """Each modality of a split's items, float32 (items, c), its numbers of variance 1."""
        if split not in self._features:
            rows = self.world.rows(split)
            scaled = self.blocks.scaled(self.world.features)
            self._features[split] = [
                part[rows] * part.shape[1] ** 0.5 for part in scaled.values()
            ]  # fmt: skip
        return self._features[split]

    def expected(self, of_all: Mapping[str, Expected]) -> dict[str, Expected]:
        """The sums of a training, for all groups one after the other, and those of the groups."""
        groups, numbers = self.centroids.shape
        every = {
            name: replace(one, shape=(groups * one.shape[0], *one.shape[1:]))
            for name, one in of_all.items()
        }
        whole = self.settings.whole_sums
        every["heads"] = Expected((groups, numbers), bounded=True, whole=whole)
        every["members"] = (
            Expected((groups, 1), bounded=True, whole=whole)
            if self._membership
            else Expected((groups,), counts="heads", of_each=True)
        )
        return every

    @property
    def _membership(self) -> float:
        return self.own.membership(self.settings)

    def _members(self, summed: Summed) -> Tensor:
        """Users of each group, int64 (groups,); of sums with noise, the nearest that can be."""
        told = torch.from_numpy(summed.sums["members"])
        if not self._membership:
            return told
        return (told[:, 0] / self._membership).round().clamp(min=0).long()

    def apart(self, summed: Summed, names: Sequence[str]) -> tuple[Summed, Sums]:
        """The sums of some names over all users, and each by group, (groups, …)."""
        by_group = {
            name: summed.sums[name].reshape(self.own.groups, -1, *summed.sums[name].shape[1:])
            for name in names
        }
        whole = {name: sums.sum(0) for name, sums in by_group.items()}
        return replace(summed, sums=whole), by_group

    def learn(
        self, summed: Summed, by_group: Sums, table: Tensor, scorer: Tensor, number: int
    ) -> None:
        """Take over what the groups' users have sent: centroids, mean scorers, mean item tables.

        Parameters
        ----------
        summed : Summed
            As nodes sent it, with ``heads`` and ``members``.
        by_group : Mapping[str, ndarray]
            The sums of `apart`.
        table, scorer : Tensor
            Float32 (warm, d) and (1, numbers), as the round began with them.
        number : int
            Of the round.

        Raises
        ------
        OverflowedError
        """
        self._targets = None
        heads, members = torch.from_numpy(summed.sums["heads"]), self._members(summed)
        merged = merge(heads, members, self.own.least_users)
        if merged is None:
            log.warning(
                "%d users are fewer than %s.least_users = %d: nothing is learnt of them as a group",
                int(members.sum()), self.name, self.own.least_users,
            )  # fmt: skip
            return
        self._tell_of_merged(merged)
        counts = merged.summed(members)
        means = (merged.summed(heads) / counts[:, None]).float()
        sums = {name: merged.summed(torch.from_numpy(one)) for name, one in by_group.items()}
        shared = scorer.expand(len(counts), -1)
        if "scorer" in sums:
            change = (sums["scorer"][:, 0] / counts[:, None]).float()
            shared = shared + self.settings.server_lr * change
        if not torch.isfinite(means).all():
            raise overflowed(number)
        self._targets = torch.stack([
            stepped(table, Summed(int(count), 0.0, {n: one[k].numpy() for n, one in sums.items()}),
                    self.settings)
            for k, count in enumerate(counts)
        ])  # fmt: skip
        self._weights = None
        if self.own.item_weights == "touches" and "touches" in sums:
            touches = sums["touches"].float()
            self._weights = touches / touches.mean(1, keepdim=True).clamp(min=1e-6)
        self.scorers = Scorers(merged, means, shared)
        self._take_centroids(next_centroids(means, counts, merged, self._seed(number)), members)

    def _take_centroids(self, centroids: Tensor, members: Tensor) -> None:
        """Take over centroids and sizes of groups, and note how far they are from the last ones."""
        shares = members.double() / members.sum()
        self._moved = {}
        if self._shares is not None:
            cosines = cosine_similarity(centroids, self.centroids).double()
            self._moved = {
                "group_cosine": float((cosines * shares).sum()),
                "group_moves": float((shares - self._shares).abs().sum() / 2),
            }
        self.centroids, self._shares = centroids, shares

    def _tell_of_merged(self, merged: Merged) -> None:
        if self.scorers is None:
            return  # at first all users are in one
        few = self.own.groups - len(merged.kept)
        told, self._few = self._few, few
        if few and few != told:
            log.warning(
                "%d of %d groups had fewer than %d users and are merged",
                few, self.own.groups, self.own.least_users,
            )  # fmt: skip

    def fit(self, number: int, beside: Tensor | None = None) -> float | None:
        """Train the network; its mean loss, or None where there is nothing new to learn.

        Parameters
        ----------
        number : int
            Of the round.
        beside : Tensor, optional
            What is taken from the groups' item tables before they are learnt, float32 (warm, d).
        """
        if self._targets is None or self.scorers is None:
            return None
        targets = self._targets if beside is None else self._targets - beside
        self._targets = None
        return self._fusion.fit(
            self.scorers.merged.kept, targets, self.features("warm"), self.own.fit_steps,
            self.own.fit_batch, self._seed(number), self.own.feature_noise, self._weights,
        )  # fmt: skip

    def prepared(self, number: int, beside: Tensor | None = None) -> dict[str, Any]:
        """`fit`, and the columns that ``rounds.csv`` has of it; none where nothing was learnt.

        ``group_cosine`` is the mean over users of the cosine of their group's centroid to that of
        the round before. ``group_moves`` is the least share of users that must have changed their
        group for its sizes to be what they are; who did, only nodes know.
        """
        begin = time.perf_counter()
        if (loss := self.fit(number, beside)) is None:
            return {}
        seconds = time.perf_counter() - begin
        return {"generator_loss": loss, "generator_seconds": seconds, **self._moved}

    def fits_in(self, coming: Sequence[tuple[int, bool]]) -> int:
        """How many of the coming rounds fit the network."""
        return len(coming) if self.settings.server_lr else 0

    def embeddings(self, scorers: Scorers, split: str) -> Tensor:
        """What is fused of the items of a split, float32 (groups, items, d)."""
        made = self._fusion.make(scorers.merged.kept, self.features(split))
        return torch.cat(list(made), 1)[scorers.merged.places]

    def own_embeddings(self) -> Tensor:
        """Warm items' own features in place of what is fused of them, float32 (groups, warm, d)."""
        features = self.blocks.beside(self.world.features)
        transform = first_transform(self.world, features)
        own = transform.embeddings(features[self.world.rows("warm")])
        return own.expand(self.own.groups, -1, -1)

    def scores(self, scorers: Scorers, split: str) -> Tensor:
        """Scores of the fused embeddings by the groups' whole mean scorers, (groups, items)."""
        dim = self.settings.dim
        state = self._head.parts(scorers.heads, self._private, dim)
        if self._shared:
            state |= self._head.parts(scorers.shared, self._shared, dim)
        made = self._fusion.make(scorers.merged.kept, self.features(split))
        scores = torch.cat([self._head.logits(state, part) for part in made], 1)
        return scores[scorers.merged.places]

    def preferred(self) -> list[dict[str, Any]] | None:
        """Of each group that is left, its share of the users and the ids of its items, best first.

        A group's items are those that its mean scorer ranks higher than those of all groups do on
        average, each group's scores standardised over items; with one group, those with the best
        scores. None while nothing was learnt.
        """
        if self.scorers is None or self._shares is None:
            return None
        merged, index = self.scorers.merged, self.world.catalogue.ids_of("warm")
        scores = self.scores(self.scorers, "warm")[merged.kept]
        scores = (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True)
        if len(scores) > 1:
            scores = scores - scores.mean(0)
        shares = merged.summed(self._shares).tolist()
        best = scores.topk(min(PREFERRED, scores.shape[1])).indices.tolist()
        return [
            {"share": share, "items": [index[item] for item in items]}
            for share, items in zip(shares, best, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        known = None
        if self.scorers is not None:
            merged, heads, shared = self.scorers.merged, self.scorers.heads, self.scorers.shared
            known = {"into": merged.into, "kept": merged.kept, "heads": heads, "shared": shared}
        return {
            "centroids": self.centroids,
            "shares": self._shares,
            "scorers": known,
            "blocks": self.blocks.state(),
            "fusion": self._fusion.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.centroids, self.blocks = state["centroids"], Blocks(**state["blocks"])
        self._fusion.restore(state["fusion"])
        self._shares = state.get("shares")
        self._targets, self.scorers, self._features = None, None, {}
        if (known := state["scorers"]) is not None:
            merged = Merged(known["into"], known["kept"])
            self.scorers = Scorers(merged, known["heads"], known["shared"])

    def moved_to(self, world: World) -> "FusedGroups":
        """The same state on another catalogue."""
        moved = copy(self)
        moved.move(world)
        return moved

    def move(self, world: World) -> None:
        """Take another catalogue, in place."""
        self.world, self.settings, self._features = world, world.settings, {}

    def _seed(self, number: int) -> int:
        return self.settings.seed * 1_000_003 + number
