"""The interface of all generators."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from common.settings import RunSettings


class Generator(ABC):
    """Learns on the server to make an item's embedding from its modality features.

    Parameters
    ----------
    dim : int
        Dimensions d of an item embedding.
    condition_dim : int
        Dimensions of a condition.
    settings : RunSettings
    device : torch.device
        Where it trains and generates; tensors go in and come out on the CPU.
    """

    instant = False
    """Whether training takes next to no time, so that it is done before every validation."""

    def __init__(
        self, dim: int, condition_dim: int, settings: RunSettings, device: torch.device
    ) -> None:
        self.dim, self.condition_dim = dim, condition_dim
        self.settings, self.device = settings, device

    @property
    def learns_change(self) -> bool:
        """Whether its target is the change of an embedding from the item's own features."""
        return self.settings.generator_target == "change"

    @abstractmethod
    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        """Train on the warm items; afterwards the mean loss of the last pass.

        Parameters
        ----------
        target : Tensor, float32 (warm, d)
            Item embeddings, or their change from the items' own features.
        conditions : Tensor, float32 (warm, c)
        seed : int
            All randomness of this training comes from it.
        """

    @abstractmethod
    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        """The target for cold items, float32 (cold, d).

        Parameters
        ----------
        conditions : Tensor, float32 (cold, c)
        seed : int
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from what `state_dict` gave, on this generator's device."""
