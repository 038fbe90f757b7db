"""What is ranked for whom, on a node: see `common.task`."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from client_app.interactions import NodeInteractions
from common.catalogue import COLD_SPLITS, ItemIndex
from common.errors import SnowdropError
from common.metrics import tie_order
from common.task import candidates
from common.users.ragged import Ragged
from common.users.randomness import draw_at, permuted, stream

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

    def among(self, users: np.ndarray) -> "Ranking":
        """The same for the users with these numbers; the others have nothing to find."""
        asked = np.zeros(len(self.truth.counts), dtype=bool)
        asked[users] = True
        return replace(self, truth=_kept(self.truth, np.repeat(asked, self.truth.counts)))


def histories(task: str, data: NodeInteractions, keys: np.ndarray, most: int = 0) -> Ragged:
    """Warm items that each user may learn from, as rows of the item table.

    Parameters
    ----------
    task : str
    data : NodeInteractions
    keys : ndarray, uint64 (users,)
    most : int
        Of more items than this, so many are drawn by the user's own key; 0: all count.
    """
    known = data.warm
    if task != "cold-items":
        known = _kept(known, ~np.logical_or.reduce(held_out(known, keys, times_of(data))))
    return _drawn(known, keys, most) if most else known


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
    wanted = held_out(data.warm, keys, times_of(data))[COLD_SPLITS.index(split)]
    return Ranking(order, _kept(data.warm, wanted), _kept(data.warm, ~wanted))


def measurable(data: NodeInteractions) -> int:
    """Users of whom some warm items are held out to be ranked."""
    return int((data.warm.counts >= _LEAST).sum())


def times_of(data: NodeInteractions) -> np.ndarray | None:
    """Time or place of each warm interaction, float64; None where the files tell no order.

    Raises
    ------
    SnowdropError
        If some of them are no numbers.
    """
    if data.times is None:
        return None
    bad = int((~np.isfinite(data.times)).sum())
    if bad:
        raise SnowdropError(
            f"the column '{data.order}' holds no number in {bad:,} of {len(data.times):,} "
            "interactions with warm items; give each a number, such as seconds since 1970, or "
            "leave the column out"
        )
    return data.times


def held_out(warm: Ragged, keys: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
    """Which interactions are held out to validate and to test, bool (2, interactions).

    One each of every user with three warm items or more: by ``times`` the last but one and the
    last, of equal ones any by the user's own key; without ``times`` any two by that key.

    Parameters
    ----------
    warm : Ragged
    keys : ndarray, uint64 (users,)
    times : ndarray, optional
        Finite, float64 (interactions,).
    """
    chosen = np.zeros((_HELD_OUT, len(warm.items)), dtype=bool)
    users = np.flatnonzero(warm.counts >= _LEAST)
    starts = stream(keys[users], "held out")
    if times is not None:
        _hold_out_latest(chosen, warm, users, starts, times)
        return chosen
    for number in range(_HELD_OUT):
        places = permuted(starts, np.full(len(users), number), warm.counts[users])
        chosen[number, warm.offsets[users] + places] = True
    return chosen


def _hold_out_latest(
    chosen: np.ndarray, warm: Ragged, users: np.ndarray, starts: np.ndarray, times: np.ndarray
) -> None:
    """Mark the last interaction of some users to test, and the last but one to validate."""
    if not len(users):
        return
    counts = warm.counts[users]
    firsts = np.cumsum(counts) - counts
    place = np.arange(counts.sum()) - np.repeat(firsts, counts)  # of an interaction in its user's
    at = np.repeat(warm.offsets[users], counts) + place
    lots = draw_at(np.repeat(starts, counts), place) | np.uint64(1)  # above the 0 of all others
    left = times[at]
    for number in reversed(range(_HELD_OUT)):
        latest = left == np.repeat(np.maximum.reduceat(left, firsts), counts)
        own = np.where(latest, lots, np.uint64(0))
        last = own == np.repeat(np.maximum.reduceat(own, firsts), counts)
        chosen[number, at[last]] = True
        left[last] = -np.inf


def _drawn(lists: Ragged, keys: np.ndarray, most: int) -> Ragged:
    """At most so many items of each user."""
    users = np.flatnonzero(lists.counts > most)
    starts = np.repeat(stream(keys[users], "history"), most)
    sizes = np.repeat(lists.counts[users], most)
    places = permuted(starts, np.tile(np.arange(most), len(users)), sizes)
    wanted = np.repeat(lists.counts <= most, lists.counts)
    wanted[np.repeat(lists.offsets[users], most) + places] = True
    return _kept(lists, wanted)


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
