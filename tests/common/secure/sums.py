"""A whole masked sum in one process, with nodes that drop out and messages that are changed."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from common.secure.fixed_point import Layout, Vector
from common.secure.groups import neighbourhoods
from common.secure.member import Confirmed, Hidden, Joined, Sharing, read, written
from common.secure.total import Total
from common.settings import LEAST


@dataclass
class Sum:
    """A masked sum of some nodes' numbers, stage by stage.

    Parameters
    ----------
    layout : Layout
    numbers : Mapping[int, Mapping[str, ndarray]]
        By place.
    """

    layout: Layout
    numbers: Mapping[int, Mapping[str, np.ndarray]]
    stages: dict[int, bytes] = field(default_factory=dict)

    def join(self, seed: int = 0) -> None:
        joined = {place: Joined.anew("session") for place in self.numbers}
        public = {place: one.public() for place, one in joined.items()}
        groups = neighbourhoods(sorted(joined), np.random.default_rng(seed))
        self.total = Total(public, groups, Vector.zeros(*self.layout.sizes()))
        self.stages = {place: written(one) for place, one in joined.items()}

    def share(
        self, without: Collection[int] = (), fewest: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        self.sealed: dict[int, Mapping[int, bytes]] = {}
        for place in self.stages.keys() - set(without):
            joined = read(self.stages[place])
            assert isinstance(joined, Joined)
            group = {other: self.total.public[other] for other in self.total.groups[place]}
            sharing, sealed = joined.share(place, group, fewest.get(place, LEAST))
            self.stages[place] = written(sharing)
            self.total.commitments[place] = sealed.commitment
            self.sealed[place] = sealed.shares

    def for_node(self, place: int) -> dict[int, bytes]:
        """Shares that the others have for a node."""
        return {other: own[place] for other, own in self.sealed.items() if place in own}

    def masked(self, place: int) -> Vector:
        sharing = read(self.stages[place])
        assert isinstance(sharing, Sharing)
        hidden, masks = sharing.accept(self.for_node(place))
        self.stages[place] = written(hidden)
        vector = self.layout.encode(self.numbers[place])
        masks.hide(vector)
        return vector

    def mask(self, without: Collection[int] = ()) -> None:
        for place in self.sealed.keys() - set(without):
            self.total.add(place, self.masked(place))

    def hidden(self, place: int) -> Hidden:
        hidden = read(self.stages[place])
        assert isinstance(hidden, Hidden)
        return hidden

    def confirm(self, place: int, there: list[int]) -> dict[int, bytes]:
        confirmed, said = self.hidden(place).confirm(there)
        self.stages[place] = written(confirmed)
        return said

    def reveal(
        self, place: int, there: list[int], said: Mapping[int, Mapping[int, bytes]]
    ) -> dict[int, bytes]:
        """Shares of a node to which others have said what stands in ``said``, by speaker."""
        confirmed = read(self.stages[place])
        assert isinstance(confirmed, Confirmed)
        heard = {other: own[place] for other, own in said.items() if place in own}
        return confirmed.reveal(there, heard)

    def unmask(
        self,
        without: Collection[int] = (),
        change: Callable[[int, dict[int, bytes]], dict[int, bytes]] = lambda _, told: told,
    ) -> set[int]:
        there = sorted(self.total.there)
        if there == sorted(self.numbers) == list(self.total.groups[1]):
            told = {place: self.hidden(place).reveal(there) for place in there}
        else:
            said = {place: self.confirm(place, there) for place in there}
            told = {place: self.reveal(place, there, said) for place in there}
        return self.total.unmask(
            {place: change(place, told[place]) for place in there if place not in without}
        )

    def found(self) -> dict[str, np.ndarray]:
        return self.layout.decode(self.total.vector)
