"""Nearest own items, the node's half: it brings the scorer that the server's half names."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from client_app.history import weight_scores
from client_app.methods.base import Local, NodeMethod
from client_app.scorers import Scorer


class PowerSum(Scorer):
    """Σ max(cos, 0)^p over the user's items.

    Needs ``warm``: (warm, c) and ``items``: (items, c), unit rows.
    """

    def __init__(self, local: Local) -> None:
        warm = local.table("warm", local.warm)
        items = local.table("items", local.items, warm.shape[1])
        power = local.settings.group("nearest-own").power
        self._weights = (items @ warm.T).clamp_(min=0) ** power  # float32 (items, warm)
        self._histories = local.histories

    def __call__(self, users: np.ndarray) -> Tensor:
        return weight_scores(self._histories.take(users), self._weights)


class NearestOwn(NodeMethod):
    """Trains nothing; scores in a way of its own."""

    scorers: Mapping[str, type[Scorer]] = {"power-sum": PowerSum}
