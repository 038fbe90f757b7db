"""Who shares secrets with whom in a masked sum, and how many nodes such a sum is about at least.

Up to 47 nodes are one group. More are on a ring, on which each has a group of its own.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np


def degree_of(nodes: int) -> int:
    """Neighbours of a node: 8 log₂ n of the others, rounded up to an even number, or all."""
    return min(nodes - 1, 2 * math.ceil(4 * math.log2(nodes)))


def neighbourhoods(places: Sequence[int], rng: np.random.Generator) -> dict[int, tuple[int, ...]]:
    """The group of each node: itself and its neighbours on a ring in random order.

    Parameters
    ----------
    places : Sequence[int]
    rng : Generator
    """
    degree = degree_of(len(places))
    if degree == len(places) - 1:
        return dict.fromkeys(places, tuple(sorted(places)))
    ring = rng.permutation(np.asarray(places)).tolist()
    steps = range(-(degree // 2), degree // 2 + 1)
    return {
        place: tuple(sorted(ring[(k + step) % len(ring)] for step in steps))
        for k, place in enumerate(ring)
    }


SMALLEST_RING = next(degree_of(n) + 1 for n in itertools.count(2) if degree_of(n) < n - 1)
"""Members of a group from which on it may be one of many; members of a smaller one have the same
list of keys."""


def threshold(members: int) -> int:
    """Members of a group who must be there to the end: above two thirds.

    Each member gives a share of one secret of each other member, or of the other one, never of
    both. A server that tells them different things would need shares from twice the threshold, more
    than there are while fewer than a third of them conspire with it.
    """
    return 2 * members // 3 + 1


def certain(members: int) -> int:
    """Members of a group that a sum is about at least, whatever the server tells whom.

    In a group of its own for each node, a server may tell a third of a node's neighbours that it
    never shared, and have others, whom the node does not know, say that the rest is not there.
    """
    enough = threshold(members)
    return enough if members < SMALLEST_RING else 2 * enough - members
