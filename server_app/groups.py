"""Groups of users as the server knows them: centroids and sums, and no user."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

SPLIT = 0.01
"""How far a new centroid lies from the one that it is split from, as a share of its length."""


@dataclass(frozen=True, eq=False)
class Merged:
    """Which group each group's users are counted with, and the groups that are left."""

    into: Tensor  # int64 (groups,)
    kept: Tensor  # int64 (kept,), ascending

    def summed(self, sums: Tensor) -> Tensor:
        """Sums of the groups that are left, (groups, …) → (kept, …)."""
        return torch.zeros_like(sums).index_add_(0, self.into, sums)[self.kept]

    @property
    def places(self) -> Tensor:
        """The place in `kept` of the group that each is counted with, int64 (groups,)."""
        return torch.searchsorted(self.kept, self.into)


def merge(sums: Tensor, members: Tensor, least: int) -> Merged | None:
    """Merge each group with too few users into the nearest other one, the smallest first.

    Parameters
    ----------
    sums : Tensor, float (groups, n)
        Of the points of each group's users.
    members : Tensor, int64 (groups,)
    least : int
        Users that a group needs.

    Returns
    -------
    Merged or None
        None where all users together are too few.
    """
    if int(members.sum()) < max(1, least):
        return None
    groups = len(members)
    into, counts, points = torch.arange(groups), members.clone(), sums.double().clone()
    alive = torch.ones(groups, dtype=torch.bool)
    while (small := alive & (counts < max(1, least))).any():
        ranked = torch.where(small, counts, counts.max() + 1)
        one = int(ranked.argmin())
        means = points / counts.clamp(min=1)[:, None]
        apart = (means - means[one]).square().sum(1)
        apart[~alive | (counts == 0)] = torch.inf
        apart[one] = torch.inf
        # A group without users has no place of its own; its users to be go with the largest.
        other = int(apart.argmin() if counts[one] else counts.argmax())
        alive[one] = False
        into[into == one] = other
        counts[other] += counts[one]
        points[other] += points[one]
        counts[one] = 0
    return Merged(into, alive.nonzero().flatten())


def next_centroids(means: Tensor, counts: Tensor, merged: Merged, seed: int) -> Tensor:
    """Lloyd's step: each group's mean; a group that was merged is split off the largest one.

    Parameters
    ----------
    means : Tensor, float32 (kept, n)
        Mean point of each group that is left.
    counts : Tensor, int64 (kept,)
        Users of each of these.
    merged : Merged
    seed : int
        Draws the directions of splits.

    Returns
    -------
    Tensor, float32 (groups, n)
    """
    largest = means[counts.argmax()]
    draw = torch.Generator().manual_seed(seed)
    aside = torch.randn(len(merged.into), means.shape[1], generator=draw)
    aside = normalize(aside) * largest.norm() * SPLIT
    centroids = largest + aside
    centroids[merged.kept] = means
    return centroids
