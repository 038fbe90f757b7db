"""The mixture's server half: two generators, each fitted as if alone, and their weighted mean."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from common import methods
from common.methods.mixture import MixtureSettings
from common.users.training import Pull
from server_app.methods.base import Generator


class Mixture(Generator[MixtureSettings]):
    """(1 − share) · first + share · second."""

    def _begin(self) -> None:
        self.parts = tuple(
            methods.load(methods.card(part).server)(
                part, self.dim, self.condition_dim, self.settings, self.device
            )
            for part in (self.own.first, self.own.second)
        )

    @property
    def mapping(self) -> Generator[Any] | None:
        return self.parts[0].mapping

    def pull(self, table: Tensor, mapped: Tensor) -> Pull | None:
        return self.parts[0].pull(table, mapped)

    @property
    def fit_every(self) -> int:
        return max(part.fit_every for part in self.parts)

    def combine(self, made: Sequence[Tensor]) -> Tensor:
        first, second = made
        return (1 - self.own.share) * first + self.own.share * second

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        raise NotImplementedError("its parts are fitted in its place")

    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        raise NotImplementedError("its parts are asked in its place")

    def state_dict(self) -> dict[str, Any]:
        """Of the parts that are not fitted anew in an instant, by name."""
        return {part.name: part.state_dict() for part in self.parts if not part.instant}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part in self.parts:
            if part.name in state:
                part.load_state_dict(state[part.name])
