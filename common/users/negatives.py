"""Negatives: items that a user has not interacted with, drawn anew in each round."""

import numpy as np

from common.users.randomness import permuted


def draw_negatives(
    starts: np.ndarray, offsets: np.ndarray, items: np.ndarray, per_item: int, item_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Items that each user has not interacted with, without replacement.

    A user with n interactions gets n · ``per_item`` negatives, or all items that it has not
    interacted with where these are fewer.

    Parameters
    ----------
    starts : ndarray, uint64 (users,)
        The streams of `stream`.
    offsets : ndarray, int64 (users + 1,)
        User u interacted with ``items[offsets[u]:offsets[u + 1]]``, ascending and distinct.
    items : ndarray, int64 (interactions,)
    per_item : int
    item_count : int
        Items to draw from: 0 … ``item_count`` − 1.

    Returns
    -------
    counts : ndarray, int64 (users,)
        Negatives of each user.
    negatives : ndarray, int64 (sum of counts,)
        User by user.
    """
    degrees = np.diff(offsets)
    free = item_count - degrees
    counts = np.minimum(degrees * per_item, free)
    user = np.repeat(np.arange(len(degrees)), counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    nth_free = permuted(starts[user], place, free[user])
    # The n-th item without interaction is n plus the number of interactions below it, and below
    # interaction j (ascending) lie items[j] − j items without one.
    owner = np.repeat(np.arange(len(degrees)), degrees)
    free_below = items - (np.arange(len(items)) - offsets[owner])
    taken = np.searchsorted(
        owner * (item_count + 1) + free_below, user * (item_count + 1) + nth_free, side="right"
    )
    return counts, nth_free + taken - offsets[user]
