"""Ranking a split's cold items for every user that has some, and the sums of the metrics."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from client_app.interactions import NodeInteractions, Ragged
from client_app.negatives import mix, stream
from client_app.scoring import HEADS, State
from common.metrics import metric_names, metric_sums, rank
from common.settings import KS, TrainingSettings

CHUNK_NUMBERS = 2**22
"""Scores that are held at once."""


def evaluate(
    data: NodeInteractions, split: str, tie_order: Tensor, scores_of: "Scorer"
) -> tuple[int, dict[str, float]]:
    """Sums of each metric over the users that have cold items of ``split``.

    Parameters
    ----------
    data : NodeInteractions
    split : str
        'validation' or 'test'.
    tie_order : Tensor, int64 (cold,)
        Place of each cold item in the order of ids.
    scores_of : Scorer
        Users' numbers → scores, float32 (users, cold).

    Returns
    -------
    users : int
    sums : dict[str, float]
    """
    totals = dict.fromkeys(metric_names(KS), 0.0)
    count = 0
    for users, hits, relevant in ranked_hits(data, split, tie_order, scores_of):
        count += len(users)
        sums = metric_sums(hits, relevant, KS)
        totals = {name: totals[name] + value for name, value in sums.items()}
    return count, totals


def ranked_hits(
    data: NodeInteractions, split: str, tie_order: Tensor, scores_of: "Scorer"
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """The best items of the users that have cold items of ``split``, in parts.

    Yields
    ------
    users : ndarray, int64 (part,)
    hits : Tensor, bool (part, ranked items)
        Whether the item at each rank is relevant.
    relevant : Tensor, int64 (part,)
        Cold items of each user.
    """
    truth_of = data.by_split[split]
    for users in user_chunks(np.flatnonzero(truth_of.counts), len(tie_order)):
        best = rank(scores_of(users), tie_order, max(KS))
        truth = membership(truth_of.take(users), len(tie_order))
        yield users, truth.gather(1, best), truth.sum(1)


class Scorer:
    """Scores of cold items for some users at a time."""

    def __call__(self, users: np.ndarray) -> Tensor:
        """Scores float32 (users, cold) of the users with these numbers."""
        raise NotImplementedError


class HeadScorer(Scorer):
    """The users' own heads on generated embeddings (equation 2)."""

    def __init__(self, state: State, cold: Tensor, settings: TrainingSettings) -> None:
        self._state, self._cold, self._head = state, cold, HEADS[settings.head]

    def __call__(self, users: np.ndarray) -> Tensor:
        state = {name: tensor[users] for name, tensor in self._state.items()}
        return self._head.logits(state, self._cold.expand(len(users), -1, -1))


class ContentProfileScorer(Scorer):
    """Cosine of a cold item to the mean of the user's warm items, in centred features."""

    def __init__(self, warm_interactions: Ragged, warm: Tensor, cold: Tensor) -> None:
        mean = warm.mean(0)
        self._warm = normalize(warm - mean)
        self._cold = normalize(cold - mean)
        self._interactions = warm_interactions

    def __call__(self, users: np.ndarray) -> Tensor:
        own = self._interactions.take(users)
        items, offsets = torch.from_numpy(own.items), torch.from_numpy(own.offsets[:-1])
        profile = embedding_bag(items, self._warm, offsets, mode="mean")
        return normalize(profile) @ self._cold.T


class RandomScorer(Scorer):
    """A random order for each user, the same on whatever node the user lives."""

    def __init__(self, keys: np.ndarray, items: int) -> None:
        self._keys, self._items = keys, items

    def __call__(self, users: np.ndarray) -> Tensor:
        starts = stream(self._keys[users], "random ranking")
        numbers = mix(starts[:, None] ^ mix(np.arange(self._items, dtype=np.uint64)))
        return torch.from_numpy((numbers >> np.uint64(40)).astype(np.float32))


def user_chunks(users: np.ndarray, items: int) -> list[np.ndarray]:
    """Users in parts whose scores of ``items`` items fit into `CHUNK_NUMBERS`."""
    size = max(1, CHUNK_NUMBERS // max(1, items))
    return [users[k : k + size] for k in range(0, len(users), size)]


def membership(lists: Ragged, items: int) -> Tensor:
    """Whether each user has each item, bool (users, items)."""
    truth = torch.zeros(len(lists.counts), items, dtype=torch.bool)
    owner = np.repeat(np.arange(len(lists.counts)), lists.counts)
    truth[torch.from_numpy(owner), torch.from_numpy(lists.items)] = True
    return truth
