"""The server's side of a masked sum: how masks come off the total."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from common.secure import keys
from common.secure.fixed_point import Vector
from common.secure.groups import threshold
from common.secure.member import PublicKeys, sign_of


@dataclass(eq=False)
class Total:
    """What a server knows of one masked sum.

    Parameters
    ----------
    public : Mapping[int, PublicKeys]
        Of all nodes that have joined, by place.
    groups : Mapping[int, tuple[int, ...]]
        As `common.secure.groups.neighbourhoods` has them.
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
