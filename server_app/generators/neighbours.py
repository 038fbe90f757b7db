"""Mean embedding of the warm items most similar in modality: the cold start of CS_FCF, CS_FedNCF.

MDiffFR compares with FCF and FedNCF "adapted to the item cold-start scenario" and does not say how.
This adaptation is ours: neither method makes anything of an item's text, so a cold item takes the
plain mean of the learnt embeddings of the k warm items with the highest cosine similarity in
standardised modality features.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from common.settings import RunSettings
from server_app.generators.base import Generator

_GENERATE_BATCH = 1024


class NeighboursGenerator(Generator):
    """Learns nothing: it keeps the warm items, and averages ``neighbours`` of them."""

    def __init__(
        self, dim: int, condition_dim: int, settings: RunSettings, device: torch.device
    ) -> None:
        super().__init__(dim, condition_dim, settings, device)
        self._target, self._conditions = torch.zeros(1, dim), torch.zeros(1, condition_dim)

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        self._target, self._conditions = target, normalize(conditions)
        return 0.0

    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        count = min(self.settings.neighbours, len(self._target))
        made = []
        for part in normalize(conditions).split(_GENERATE_BATCH):
            nearest = (part @ self._conditions.T).topk(count, dim=1).indices
            made.append(self._target[nearest].mean(1))
        return torch.cat(made)

    def state_dict(self) -> dict[str, Any]:
        return {"target": self._target, "conditions": self._conditions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._target, self._conditions = state["target"], state["conditions"]
