"""Truncated singular value decomposition of all users' rows."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, vstack

from cli.bench_synthetic.protocol import Material
from cli.bench_synthetic.recommenders.base import Recommender
from client_app.synthesis.base import Watch, unwatched

if TYPE_CHECKING:
    from torch import Tensor

COMPONENTS = 20
ITERATIONS = 100


class SVD(Recommender):
    """Scores are the reconstruction of a user's row from the first 20 singular vectors.

    scikit-learn's randomised solver with 100 iterations, as the published code calls it (arXiv
    2311.03488, section 5.1.3). Rows are real users, what is folded in, and synthetic users.
    """

    title = "SVD"

    def fit(self, material: Material, seed: int, watch: Watch = unwatched) -> None:
        from sklearn.decomposition import TruncatedSVD

        watch("decomposing", 0, 1)
        parts = (material.real.likes, material.reported.likes, material.synthetic.likes)
        rows = csr_array(vstack(parts, format="csr"), dtype=np.float64)
        components = min(COMPONENTS, rows.shape[1] - 1)
        solver = TruncatedSVD(components, n_iter=ITERATIONS, random_state=seed)
        places = solver.fit_transform(rows)
        first = material.real.users
        self._places = places[first : first + material.reported.users]
        self._items = solver.components_
        watch("decomposing", 1, 1)

    def scores(self, rows: slice) -> "Tensor":
        import torch

        return torch.from_numpy((self._places[rows] @ self._items).astype(np.float32))
