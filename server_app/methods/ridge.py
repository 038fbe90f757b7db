"""Ridge regression from conditions to item embeddings, the simplest learnt map."""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from common.methods.generator import GeneratorSettings
from server_app.methods.base import Generator

PENALTIES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)


class Ridge(Generator[GeneratorSettings]):
    """Linear map with an L2 penalty that leave-one-out errors on warm items choose."""

    instant = True

    def _begin(self) -> None:
        self._weight, self._bias = torch.zeros(self.condition_dim, self.dim), torch.zeros(self.dim)

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        model = RidgeCV(alphas=PENALTIES).fit(conditions.double().numpy(), target.double().numpy())
        self._weight = torch.from_numpy(np.atleast_2d(model.coef_).T).float()
        self._bias = torch.from_numpy(np.atleast_1d(model.intercept_)).float()
        return float(((conditions @ self._weight + self._bias - target) ** 2).mean())

    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        return conditions @ self._weight + self._bias

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self._weight, "bias": self._bias}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weight, self._bias = state["weight"], state["bias"]
