"""What is fitted once on the warm items' modality features, and kept for the whole training."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import normalize

from common.errors import SnowdropError
from common.settings import RunSettings


@dataclass(frozen=True, eq=False)
class FeatureTransform:
    """PCA and standardisation of modality features; refitting them would break every head."""

    mean: Tensor  # float32 (c,)
    scale: Tensor  # float32 (), one standard deviation of all warm features
    components: Tensor  # float32 (c, k): principal axes, by falling variance
    spread: Tensor  # float32 (k,): standard deviation along each of them
    dim: int
    condition_dim: int
    whitening: float

    @classmethod
    def fit(cls, warm: np.ndarray, settings: RunSettings) -> Self:
        """Fit on the warm items' features, float32 (warm, c).

        Raises
        ------
        SnowdropError
            If more principal components are asked for than the data have.
        """
        available = min(warm.shape[0] - 1, warm.shape[1])
        dim = settings.dim if settings.table_start == "features" else 0
        for name, wanted in (("dim", dim), ("condition_dim", settings.condition_dim)):
            if wanted > available:
                raise SnowdropError(
                    f"{name} = {wanted} exceeds the {available} principal components of "
                    f"{warm.shape[0]} warm items with {warm.shape[1]} features; choose it smaller"
                )
        kept = min(available, max(settings.dim, settings.condition_dim))
        pca = PCA(kept, svd_solver="full").fit(warm.astype(np.float64))
        return cls(
            mean=torch.from_numpy(warm.mean(0).astype(np.float32)),
            scale=torch.tensor(float(warm.std()), dtype=torch.float32),
            components=torch.from_numpy(pca.components_.T.astype(np.float32)),
            spread=torch.from_numpy(np.sqrt(pca.explained_variance_).astype(np.float32)),
            dim=settings.dim,
            condition_dim=settings.condition_dim,
            whitening=settings.whitening,
        )

    def embeddings(self, features: Tensor) -> Tensor:
        """Items' own features as item embeddings, float32 (items, c) → (items, d).

        The first d principal components, each divided by its standard deviation to the power of
        ``whitening``; rows of unit length.
        """
        scores = (features - self.mean) @ self.components[:, : self.dim]
        return normalize(scores / self.spread[: self.dim].clamp(min=1e-6) ** self.whitening)

    def conditions(self, features: Tensor) -> Tensor:
        """Condition of the generator, float32 (items, c) → (items, condition_dim or c)."""
        centred = (features - self.mean) / self.scale
        if self.condition_dim:
            return centred @ self.components[:, : self.condition_dim]
        return centred

    @property
    def condition_size(self) -> int:
        """Dimensions of a condition."""
        return self.condition_dim or len(self.mean)

    def state(self) -> dict[str, Tensor | int | float]:
        """What a checkpoint keeps."""
        return dict(self.__dict__)
