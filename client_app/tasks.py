"""What is ranked for whom, on a node: see `common.task`."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client_app.interactions import NodeInteractions
from common.catalogue import COLD_SPLITS, ItemIndex
from common.metrics import tie_order
from common.task import candidates
from common.users.ragged import Ragged
from common.users.randomness import permuted, stream

_HELD_OUT = 2  # one item to test and one to validate
_LEAST = 3  # a user with fewer warm items has none held out, so that some are left to learn from


@dataclass(frozen=True, eq=False)
class Ranking:
    """Items that are ranked for each user, and which of them are relevant."""

    order: Tensor  # int64 (items,): place of each item in the order of ids, which breaks ties
    truth: Ragged
    left_out: Ragged | None = None
    """Items that a user knows already, which are not ranked for it."""

    @property
    def items(self) -> int:
        """Number of items that are ranked."""
        return len(self.order)


def histories(task: str, data: NodeInteractions, keys: np.ndarray) -> Ragged:
    """Warm items that each user may learn from, as rows of the item table."""
    if task == "cold-items":
        return data.warm
    return _kept(data.warm, ~np.logical_or.reduce(held_out(data.warm, keys)))


def ranking(
    task: str, split: str, index: ItemIndex, data: NodeInteractions, keys: np.ndarray
) -> Ranking:
    """What is ranked when a split is measured.

    Parameters
    ----------
    task : str
    split : str
        'validation' or 'test'.
    index : ItemIndex
    data : NodeInteractions
    keys : ndarray, uint64 (users,)
    """
    order = tie_order(index.ids_of(candidates(task, split)))
    if task == "cold-items":
        return Ranking(order, data.by_split[split])
    wanted = held_out(data.warm, keys)[COLD_SPLITS.index(split)]
    return Ranking(order, _kept(data.warm, wanted), _kept(data.warm, ~wanted))


def held_out(warm: Ragged, keys: np.ndarray) -> np.ndarray:
    """Which interactions are held out to validate and to test, bool (2, interactions).

    Of every user with at least three warm items one each, drawn with the user's own key.
    """
    chosen = np.zeros((_HELD_OUT, len(warm.items)), dtype=bool)
    users = np.flatnonzero(warm.counts >= _LEAST)
    starts = stream(keys[users], "held out")
    for number in range(_HELD_OUT):
        places = permuted(starts, np.full(len(users), number), warm.counts[users])
        chosen[number, warm.offsets[users] + places] = True
    return chosen


def _kept(lists: Ragged, wanted: np.ndarray) -> Ragged:
    owner = np.repeat(np.arange(len(lists.counts)), lists.counts)
    counts = np.bincount(owner[wanted], minlength=len(lists.counts))
    return Ragged(np.concatenate([[0], np.cumsum(counts)]), lists.items[wanted])


def membership(lists: Ragged, items: int) -> Tensor:
    """Whether each user has each item, bool (users, items)."""
    truth = torch.zeros(len(lists.counts), items, dtype=torch.bool)
    owner = np.repeat(np.arange(len(lists.counts)), lists.counts)
    truth[torch.from_numpy(owner), torch.from_numpy(lists.items)] = True
    return truth
