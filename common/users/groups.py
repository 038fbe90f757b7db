"""Groups of users that each user finds for itself, and a teacher of each group.

The server tells a centroid of each group, in the space of the private parts of users' heads. Sums
over the users that are nearest to each are all that it needs for the next centroids: the means of
the groups. That is Lloyd's algorithm for k-means, one step a round, without anybody seeing a point.
With the cosine in place of the distance it is k-means on the sphere (Dhillon and Modha, Machine
Learning 2001), with points weighted by their length.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, normalize

from common.users.heads import Head, State
from common.users.training import Samples

LEAST = 1e-7
"""The teacher's probabilities lie between it and 1 − it, as published."""

KEPT = 0.9
"""Share of a running mean that each new value leaves."""

MOST = 100.0
"""Largest ρ: a user that agrees with its teacher has next to no distance to divide by."""


def nearest(points: Tensor, centroids: Tensor, distance: str) -> Tensor:
    """The nearest centroid of each point, of equal ones the first, int64 (points,).

    Parameters
    ----------
    points : Tensor, float32 (points, n)
    centroids : Tensor, float32 (groups, n)
    distance : str
        'euclidean' or 'cosine'.
    """
    if distance == "cosine":
        return (points @ normalize(centroids).T).argmax(1)
    return (points @ centroids.T - centroids.square().sum(1) / 2).argmax(1)


class NearestCentroid:
    """Groups of users by their private parts of a scoring head.

    Parameters
    ----------
    centroids : Tensor, float32 (groups, n)
    head : Head
    names : Sequence[str]
        The private parts, in the order of the centroids' numbers.
    distance : str
    """

    def __init__(self, centroids: Tensor, head: Head, names: Sequence[str], distance: str) -> None:
        self.count = len(centroids)
        self._centroids, self._distance = centroids, distance
        self._head, self.names = head, tuple(names)

    def of(self, users: np.ndarray, state: State) -> Tensor:
        """The group of each user, int64 (users,)."""
        return nearest(self.points(state), self._centroids, self._distance)

    def points(self, state: State) -> Tensor:
        """Users' private parts as one vector each, float32 (users, n)."""
        return self._head.flat(state, self.names)


class Clustered(NearestCentroid):
    """Groups by spectral clustering of all users' private parts, as a round begins.

    That is what the published server makes of the parameters that single users upload. Here the
    one node that has all users does it, and parameters leave it in sums alone. Labels keep their
    meaning: each cluster takes that of the centroid with which it shares the most users.

    Parameters
    ----------
    state : State
        Heads of all users, float32 (users, …); all else is as for `NearestCentroid`.
    """

    def __init__(
        self, centroids: Tensor, head: Head, names: Sequence[str], distance: str, state: State
    ) -> None:
        super().__init__(centroids, head, names, distance)
        points = self.points(state)
        before = nearest(points, centroids, distance).numpy()
        self._labels = torch.from_numpy(aligned(spectral(points, self.count), before, self.count))

    def of(self, users: np.ndarray, state: State) -> Tensor:
        """The group of each user, int64 (users,)."""
        return self._labels[torch.from_numpy(users)]


def spectral(points: Tensor, groups: int) -> np.ndarray:
    """Spectral clustering with the affinity exp(−γ ‖x − y‖²), int64 (points,).

    Each coordinate is standardised first; γ = 1 / (2 · median²) of the distances above 0, as in the
    published code. Points that are all equal, or no more than the groups, are one cluster.

    Parameters
    ----------
    points : Tensor, float32 (points, n)
    groups : int
    """
    from scipy.spatial.distance import pdist, squareform
    from sklearn.cluster import SpectralClustering

    rows = points.double().numpy()
    spread = rows.std(0)
    apart = pdist((rows - rows.mean(0)) / np.where(spread > 0, spread, 1))
    if len(rows) <= groups or groups == 1 or not apart.any():
        return np.zeros(len(rows), np.int64)
    gamma = 1 / (2 * np.median(apart[apart > 0]) ** 2)
    affinity = np.exp(-gamma * squareform(apart) ** 2)
    made = SpectralClustering(groups, affinity="precomputed", random_state=0).fit_predict(affinity)
    return made.astype(np.int64)


def aligned(labels: np.ndarray, before: np.ndarray, groups: int) -> np.ndarray:
    """Labels renamed so that as many points as possible keep those of before, int64 (points,)."""
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((groups, groups), np.int64)
    np.add.at(shared, (labels, before), 1)
    _, named = linear_sum_assignment(-shared)
    renamed: np.ndarray = named[labels]
    return renamed


class Teacher:
    """A further loss: how far a user's scores are from what its group's teacher prefers.

    With t the teacher's probability of an item and ŷ the user's, both at temperature T, it is
    λ · ρ · T² times the mean over the batch of KL((t, 1 − t) ‖ (ŷ, 1 − ŷ)).

    Parameters
    ----------
    wanted : Tensor, float32 (groups, warm)
        Probabilities t.
    group : Tensor, int64 (users,)
        Of each user of the node; −1: it has no teacher yet.
    weight : float
        λ.
    temperature : float
        T.
    ratio : Tensor, optional
        ρ of each user, float32 (users,), 0 where it has none yet: the running mean over forward
        passes of (cross-entropy) / (KL), at most `MOST`, for which no gradient is taken. None:
        ρ = 1.
    """

    def __init__(
        self,
        wanted: Tensor,
        group: Tensor,
        weight: float,
        temperature: float = 1.0,
        ratio: Tensor | None = None,
    ) -> None:
        self._wanted = wanted.clamp(LEAST, 1 - LEAST)
        self._entropy = binary_cross_entropy(self._wanted, self._wanted, reduction="none")
        self._group, self._weight, self._temperature = group, weight, temperature
        self.ratio = None if ratio is None else ratio.clone()

    def losses(
        self, users: np.ndarray, samples: Samples, batch: Tensor | None, logits: Tensor
    ) -> Tensor:
        """The loss of each user on one batch, float32 (users,)."""
        items, labels, real = (
            part if batch is None else part.gather(1, batch)
            for part in (samples.items, samples.labels, samples.real)
        )
        who = torch.from_numpy(users)
        group = self._group[who]
        taught = real * (group >= 0)[:, None]
        place = group.clamp(min=0)[:, None], items
        soft, wanted = logits / self._temperature, self._wanted[place]
        apart = binary_cross_entropy_with_logits(soft, wanted, reduction="none")
        weights = real / real.sum(1, keepdim=True).clamp(min=1)
        distance = ((apart - self._entropy[place]) * taught * weights).sum(1)
        ratio = self._ratio_of(who, logits, labels, weights, distance.detach())
        return self._weight * self._temperature**2 * ratio * distance

    def _ratio_of(
        self, who: Tensor, logits: Tensor, labels: Tensor, weights: Tensor, distance: Tensor
    ) -> Tensor | float:
        """ρ of some users after this forward pass, float32 (users,)."""
        if self.ratio is None:
            return 1.0
        entropy = binary_cross_entropy_with_logits(logits.detach(), labels, reduction="none")
        now = ((entropy * weights).sum(1) / distance.clamp(min=LEAST)).clamp(max=MOST)
        before = self.ratio[who]
        moved = torch.where(before > 0, KEPT * before + (1 - KEPT) * now, now)
        there = weights.any(1) & (distance > 0)
        self.ratio[who] = torch.where(there, moved, before)
        return self.ratio[who]
