"""Lists of items of many users, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged:
    """A list of items for each user: user u has ``items[offsets[u]:offsets[u + 1]]``, ascending."""

    offsets: np.ndarray  # int64 (users + 1,)
    items: np.ndarray  # int64 (interactions,)

    @cached_property
    def counts(self) -> np.ndarray:
        """Items of each user, int64 (users,)."""
        return np.diff(self.offsets)

    def of(self, user: int) -> np.ndarray:
        """Items of one user."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def take(self, users: np.ndarray) -> "Ragged":
        """The lists of some users, in the given order."""
        counts = self.counts[users]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], counts)
        return Ragged(offsets, self.items[places])


def merged(lists: Sequence[Ragged]) -> Ragged:
    """The lists of each user in one, for lists of the same users."""
    users = np.concatenate([np.repeat(np.arange(len(r.counts)), r.counts) for r in lists])
    items = np.concatenate([r.items for r in lists])
    order = np.lexsort((items, users))
    return Ragged(np.sum([r.offsets for r in lists], axis=0), items[order])
