"""Item tables of users' own: only rows that a user has trained are kept, all others are redrawn.

A whole table for each user would take users · items · d numbers. Here a user keeps the rows that it
has trained, by the items' keys. Any other row is one of a pool of random rows, and which one it is
depends on (user, item) alone: it is the same in every round, and on whatever node the user lives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.users.heads import State
from common.users.ragged import Ragged
from common.users.randomness import mix, stream
from common.users.training import Samples

POOL_ROWS = 4096
"""Random rows of which every row that nobody has trained is one."""

COUNTS, ITEMS, ROWS = "own.counts", "own.items", "own.rows"
"""Parts of a state that hold users' own rows, user by user; the counts say how many each has."""


def is_own(part: str) -> bool:
    """Whether a part of a state belongs to users' own rows."""
    return part in (COUNTS, ITEMS, ROWS)


@dataclass(frozen=True, eq=False)
class FirstRows:
    """The rows of users' own tables before anybody trains them.

    Parameters
    ----------
    pool : Tensor, float32 (pool, d)
    starts : ndarray, uint64 (users,)
        Streams of the users; equal streams give equal tables.
    item_keys : ndarray, uint64 (warm,)
    """

    pool: Tensor
    starts: np.ndarray
    item_keys: np.ndarray

    @classmethod
    def drawn(
        cls, keys: np.ndarray, item_keys: np.ndarray, dim: int, scale: float, seed: int, same: bool
    ) -> "FirstRows":
        """Rows from N(0, ``scale``²) on every entry.

        Parameters
        ----------
        keys : ndarray, uint64 (users,)
        item_keys : ndarray, uint64 (warm,)
        dim : int
        scale : float
        seed : int
            Of the pool, which all users share.
        same : bool
            Whether all users start from the same table, as if they were one.
        """
        draw = torch.Generator().manual_seed(seed)
        pool = torch.randn(POOL_ROWS if scale else 1, dim, generator=draw) * scale
        return cls(pool, stream(np.zeros_like(keys) if same else keys, "own rows"), item_keys)

    def places(self, users: np.ndarray, items: np.ndarray) -> Tensor:
        """The row of the pool that each row is, int64 (users, items).

        Parameters
        ----------
        users : ndarray, int64 (users,)
        items : ndarray, int64 (users, items) or (items,)
            Rows of the item table.
        """
        numbers = mix(self.starts[users][:, None] ^ mix(self.item_keys)[items])
        return torch.from_numpy((numbers % np.uint64(len(self.pool))).astype(np.int64))

    def rows(self, users: np.ndarray, items: np.ndarray) -> Tensor:
        """The rows themselves, float32 (users, items, d)."""
        return self.pool[self.places(users, items)]


class OwnRows:
    """Users' own item tables, as rows to be added to those of the shared table.

    Parameters
    ----------
    state : State
        Their parts `COUNTS`, `ITEMS` and `ROWS`; not changed.
    first : FirstRows
    only_history : bool
        Whether negatives' rows are forgotten after each round.
    """

    def __init__(self, state: State, first: FirstRows, only_history: bool = False) -> None:
        self.first, self._only_history = first, only_history
        self._values = state[ROWS]
        self._kept = self._as_rows(state[COUNTS].numpy(), state[ITEMS].numpy().view(np.uint64))
        self._new: list[tuple[np.ndarray, Tensor]] = []

    def _as_rows(self, counts: np.ndarray, item_keys: np.ndarray) -> np.ndarray:
        """Numbers of what is kept, user · warm + row, ascending; items that are gone are left out.

        The catalogue may have grown since, so that items have other rows.
        """
        warm = self.first.item_keys
        order = np.argsort(warm)
        place = np.searchsorted(warm[order], item_keys).clip(max=max(len(warm) - 1, 0))
        row = order[place]
        known = warm[row] == item_keys
        numbers = np.repeat(np.arange(len(counts)), counts)[known] * len(warm) + row[known]
        sorting = np.argsort(numbers, kind="stable")
        self._values = self._values[torch.from_numpy(np.flatnonzero(known)[sorting])]
        return numbers[sorting]

    def rows(self, users: np.ndarray, samples: Samples) -> Tensor:
        """Users' own rows of the items that they sample, float32 (users, width, d)."""
        items = samples.items.numpy()
        rows = self.first.rows(users, items)
        wanted = (users[:, None] * len(self.first.item_keys) + items).ravel()
        place = np.searchsorted(self._kept, wanted)
        there = np.flatnonzero(np.append(self._kept, -1)[place] == wanted)
        rows.flatten(0, 1)[torch.from_numpy(there)] = self._values[torch.from_numpy(place[there])]
        return rows

    def keep(self, users: np.ndarray, samples: Samples, own: Tensor) -> None:
        """Take over users' own rows as a round leaves them, float32 (users, width, d)."""
        which = (samples.labels if self._only_history else samples.real) > 0
        numbers = users[:, None] * len(self.first.item_keys) + samples.items.numpy()
        self._new.append((numbers[which.numpy()], own[which]))

    def state(self) -> State:
        """The parts of the state with all that was taken over."""
        numbers = np.concatenate([*(numbers for numbers, _ in self._new), self._kept])
        values = torch.cat([*(values for _, values in self._new), self._values])
        kept, first = np.unique(numbers, return_index=True)  # of a row's two values, the new one
        warm = len(self.first.item_keys)
        counts = np.bincount(kept // warm, minlength=len(self.first.starts))
        return {
            COUNTS: torch.from_numpy(counts),
            ITEMS: torch.from_numpy(self.first.item_keys[kept % warm].view(np.int64)),
            ROWS: values[torch.from_numpy(first)],
        }

    def scores(self, users: np.ndarray, weights: Tensor) -> Tensor:
        """What users' own rows add to a linear score of every warm item, float32 (users, warm).

        Parameters
        ----------
        users : ndarray, int64 (users,)
        weights : Tensor, float32 (users, d)
        """
        warm = len(self.first.item_keys)
        scores = weights @ self.first.pool.T
        scores = scores.gather(1, self.first.places(users, np.arange(warm)))
        begin = np.searchsorted(self._kept, users * warm)
        counts = np.searchsorted(self._kept, (users + 1) * warm) - begin
        owner = np.repeat(np.arange(len(users)), counts)
        own = Ragged(np.concatenate([[0], np.cumsum(counts)]), np.arange(0))
        at = np.arange(len(owner)) + np.repeat(begin - own.offsets[:-1], counts)
        values = (self._values[torch.from_numpy(at)] * weights[torch.from_numpy(owner)]).sum(1)
        scores[torch.from_numpy(owner), torch.from_numpy(self._kept[at] % warm)] = values
        return scores


def nothing_kept(users: int, dim: int) -> State:
    """The parts of the state of users that never trained."""
    return {
        COUNTS: torch.zeros(users, dtype=torch.int64),
        ITEMS: torch.zeros(0, dtype=torch.int64),
        ROWS: torch.zeros(0, dim),
    }


def rearranged(known: State, fresh: State, places: np.ndarray) -> State:
    """A state for other users: what is known of them, the rest fresh.

    Parameters
    ----------
    known, fresh : State
        Tensors (users, …); users' own rows, where a method has some, user by user.
    places : ndarray, int64 (users,)
        The number that each of the users has in ``known``; −1: it is not known.
    """
    there = places >= 0
    here, of = (torch.from_numpy(one) for one in (np.flatnonzero(there), places[there]))
    state = {name: tensor.clone() for name, tensor in fresh.items() if not is_own(name)}
    for name, tensor in state.items():
        tensor[here] = known[name][of]
    if COUNTS in fresh:
        state |= _rearranged_rows(known, fresh, places)
    return state


def only(state: State, places: np.ndarray) -> State:
    """The state of some of the users, by their numbers in it, int64 (users,)."""
    whole = torch.from_numpy(places)
    fresh = {name: tensor[whole] for name, tensor in state.items() if not is_own(name)}
    if COUNTS in state:
        fresh |= nothing_kept(len(places), state[ROWS].shape[1])
    return rearranged(state, fresh, places)


def _rearranged_rows(known: State, fresh: State, places: np.ndarray) -> State:
    there = places >= 0
    sizes = [one[COUNTS].numpy() for one in (known, fresh)]
    counts = np.where(there, sizes[0][places], sizes[1])
    begins = [np.cumsum(size) - size for size in sizes]
    # Rows of both states one after the other: those of fresh come behind all that are known.
    begin = np.where(there, begins[0][places], begins[1] + sizes[0].sum())
    at = np.arange(counts.sum()) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
    which = torch.from_numpy(at)
    both = {name: torch.cat([known[name], fresh[name]])[which] for name in (ITEMS, ROWS)}
    return {COUNTS: torch.from_numpy(counts), **both}
