"""The server's side of a masked sum: who is whose neighbour, and how masks come off the total."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from common.secure import keys
from common.secure.fixed_point import Vector
from common.secure.member import PublicKeys, sign_of, threshold

WHOLE = 32
"""Nodes up to which each shares with every other one."""


def degree_of(nodes: int) -> int:
    """Neighbours of a node: all others, or 8 log₂ n of them, rounded up to an even number."""
    if nodes <= WHOLE:
        return nodes - 1
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


@dataclass(eq=False)
class Total:
    """What a server knows of one masked sum.

    Parameters
    ----------
    public : Mapping[int, PublicKeys]
        Of all nodes that have joined, by place.
    groups : Mapping[int, tuple[int, ...]]
        As `neighbourhoods` has them.
    vector : Vector
        Zeros at first.
    """

    public: Mapping[int, PublicKeys]
    groups: Mapping[int, tuple[int, ...]]
    vector: Vector
    commitments: dict[int, bytes] = field(default_factory=dict)
    """Of the nodes that have shared."""
    there: set[int] = field(default_factory=set)
    """Nodes whose masked vectors are in the total."""

    def add(self, place: int, masked: Vector) -> None:
        """Add a node's masked vector.

        Raises
        ------
        SnowdropError
            If it has another shape; nothing is added then.
        """
        self.vector.add(masked)
        self.there.add(place)

    def enough(self, among: set[int]) -> bool:
        """Whether every group still has as many members as it needs."""
        return all(
            len(among.intersection(self.groups[place])) >= threshold(len(self.groups[place]))
            for place in self.commitments
        )

    def unmask(self, shares: Mapping[int, Mapping[int, bytes]]) -> set[int]:
        """Take all masks off the total.

        Parameters
        ----------
        shares : Mapping[int, Mapping[int, bytes]]
            What `common.secure.member.Hidden.reveal` gave, by the member that gave it.

        Returns
        -------
        set[int]
            Members that sent false shares.

        Raises
        ------
        SnowdropError
            If too few shares came, or too many are false; the total is useless then.
        """
        liars: set[int] = set()
        for place in sorted(self.commitments):
            own = {
                holder: told[place]
                for holder, told in shares.items()
                if place in told and holder in self.groups[place]
            }
            needed = threshold(len(self.groups[place]))
            if place in self.there:
                genuine = partial(keys.is_committed, self.commitments[place])
                secret, false = keys.put_together(own, needed, genuine)
                keys.add_mask(self.vector, secret, -1)
            else:
                genuine = partial(keys.belongs, self.public[place].mask)
                secret, false = keys.put_together(own, needed, genuine)
                self._take_pairs_off(place, secret)
            liars |= false
        return liars

    def _take_pairs_off(self, lost: int, private: bytes) -> None:
        """Take off the masks that the others share with a node that is not in the total."""
        others = self.there.intersection(self.groups[lost]) - {lost}
        pairs = keys.agreed(private, {other: self.public[other].mask for other in others})
        for other, key in pairs.items():
            keys.add_mask(self.vector, key, -sign_of(other, lost))
