"""Nearest warm item, the server's half. Nodes train heads and the item table as usual."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from common.methods import MethodSettings
from server_app.methods import Generator


class NearestWarm(Generator[MethodSettings]):
    """Keeps the warm items' conditions and embeddings; generating is looking one up."""

    instant = True  # fitting takes no time: it is done whenever items are scored

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._target = torch.zeros(1, self.dim)  # float32 (warm, d)
        self._unit = torch.zeros(1, self.condition_dim)  # float32 (warm, c)

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        self._target, self._unit = target, normalize(conditions)
        return 0.0  # nothing is learnt, so there is no loss

    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        nearest = (normalize(conditions) @ self._unit.T).argmax(1)  # int64 (cold,)
        return self._target[nearest]

    def state_dict(self) -> dict[str, Any]:
        return {"target": self._target, "unit": self._unit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._target, self._unit = state["target"], state["unit"]
