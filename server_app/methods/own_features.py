"""The control without a generator: a cold item is its own modality features."""

import torch
from torch import Tensor

from common.methods import MethodSettings
from server_app.methods.base import Generator


class OwnFeatures(Generator[MethodSettings]):
    """No change from an item's own principal components, as the item table starts from them."""

    @property
    def learns_change(self) -> bool:
        return True

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        return 0.0

    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        return torch.zeros(len(conditions), self.dim)
