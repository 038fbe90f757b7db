"""Mean embedding of the warm items most similar in text: the cold start of CS_FCF and CS_FedNCF.

MDiffFR compares with FCF and FedNCF "adapted to the item cold-start scenario" and does not say how.
This adaptation is ours: neither method makes anything of an item's text, so a cold item takes the
plain mean of the learnt embeddings of the k warm items with the highest cosine similarity in
standardised modality features.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from common.methods.similar_items import NeighbourSettings
from server_app.methods.base import Generator

_BATCH = 1024


def mean_of_nearest(conditions: Tensor, warm: Tensor, table: Tensor, count: int) -> Tensor:
    """Mean embedding of the warm items with the highest cosine similarity, float32 (items, d).

    Parameters
    ----------
    conditions : Tensor, float32 (items, c)
    warm : Tensor, float32 (warm, c)
        Conditions of the warm items.
    table : Tensor, float32 (warm, d)
    count : int
    """
    warm, count = normalize(warm), min(count, len(warm))
    parts = normalize(conditions).split(_BATCH)
    return torch.cat([table[(part @ warm.T).topk(count, dim=1).indices].mean(1) for part in parts])


class SimilarItems(Generator[NeighbourSettings]):
    """Learns nothing: it keeps the warm items, and averages ``neighbours`` of them."""

    instant = True

    def _begin(self) -> None:
        self._target, self._conditions = (
            torch.zeros(1, self.dim),
            torch.zeros(1, self.condition_dim),
        )

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        self._target, self._conditions = target, conditions
        return 0.0

    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        return mean_of_nearest(conditions, self._conditions, self._target, self.own.neighbours)

    def state_dict(self) -> dict[str, Any]:
        return {"target": self._target, "conditions": self._conditions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._target, self._conditions = state["target"], state["conditions"]
