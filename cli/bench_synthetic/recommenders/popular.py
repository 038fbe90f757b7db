"""The most popular items, the same for everybody."""

from typing import TYPE_CHECKING

import numpy as np

from cli.bench_synthetic.protocol import Material
from cli.bench_synthetic.recommenders.base import Recommender
from client_app.synthesis.base import Watch, unwatched

if TYPE_CHECKING:
    from torch import Tensor


class Popular(Recommender):
    """Scores are the numbers of users who like an item: what a recommender must beat."""

    title = "most popular"

    def fit(self, material: Material, seed: int, watch: Watch = unwatched) -> None:
        parts = (material.real, material.reported, material.synthetic)
        self._likes = sum((part.likes.sum(0, dtype=np.int64) for part in parts), start=np.zeros(1))
        self._users = material.reported.users

    def scores(self, rows: slice) -> "Tensor":
        import torch

        return torch.from_numpy(self._likes.astype(np.float32)).repeat(
            len(range(self._users)[rows]), 1
        )
