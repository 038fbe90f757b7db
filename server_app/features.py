"""What is fitted once on the warm items' modality features, and kept for the whole training."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import normalize, pad

from common.errors import SnowdropError
from common.settings import RunSettings

log = logging.getLogger("snowdrop")


@dataclass(frozen=True, eq=False)
class Blocks:
    """Features of several modalities side by side, scaled once on warm items.

    Each modality is centred on the warm items that have it, and divided by the root of their mean
    squared norm: all have a variance of 1, however many numbers they are, times the square of
    their weight. An item without a modality (zeros) stands at its centre.
    """

    weights: Mapping[str, float]
    means: Mapping[str, Tensor]  # float32 (c,) each
    norms: Mapping[str, float]

    @classmethod
    def fit(
        cls, features: Mapping[str, Tensor], warm: np.ndarray, weights: Mapping[str, float]
    ) -> Self:
        """Scales of the modalities that have a weight.

        Parameters
        ----------
        features : Mapping[str, Tensor]
            By modality, float32 (items, c).
        warm : ndarray, int64
            Rows of the warm items.
        weights : Mapping[str, float]

        Raises
        ------
        SnowdropError
            If no warm item has a modality, or all have the same.
        """
        means, norms = {}, {}
        for name in weights:
            rows = features[name][warm]
            rows = rows[rows.any(1)]
            if not len(rows):
                raise SnowdropError(
                    f"no warm item has {name} features: leave {name} out of modality"
                )
            means[name] = rows.mean(0)
            norms[name] = float((rows - means[name]).square().sum(1).mean().sqrt())
            if len(weights) > 1 and not norms[name]:
                raise SnowdropError(
                    f"all warm items have the same {name} features: leave {name} out of modality"
                )
        return cls(dict(weights), means, norms)

    def beside(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features of all items in one table, float32 (items, Σ c).

        A single modality is left as it is, with items that lack it at its centre.
        """
        if len(self.weights) == 1:
            ((name, mean),) = self.means.items()
            rows = features[name]
            absent = ~rows.any(1)
            return torch.where(absent[:, None], mean, rows) if absent.any() else rows
        return torch.cat(list(self.scaled(features).values()), 1)

    def scaled(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each modality by itself, centred and scaled, float32 (items, c) by name."""
        parts = {}
        for name, weight in self.weights.items():
            rows = features[name]
            scaled = (rows - self.means[name]) * (weight / (self.norms[name] or 1.0))
            parts[name] = scaled * rows.any(1)[:, None]
        return parts

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return dict(self.__dict__)


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

        Fewer warm items than dimensions have fewer principal components; the dimensions that are
        left stay zero.

        Raises
        ------
        SnowdropError
            If more principal components are asked for than an item has features.
        """
        available = min(warm.shape[0] - 1, warm.shape[1])
        dim = settings.dim if settings.table_start == "features" else 0
        for name, wanted in (("dim", dim), ("condition_dim", settings.condition_dim)):
            if wanted > warm.shape[1]:
                raise SnowdropError(
                    f"{name} = {wanted} exceeds the {warm.shape[1]} features of an item; choose "
                    "it smaller"
                )
            if wanted > available:
                log.warning(
                    "%s = %d, but %d warm items have no more than %d principal components: the "
                    "other dimensions stay zero", name, wanted, len(warm), available
                )  # fmt: skip
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
        ``whitening``; rows of unit length, filled up with zeros where there are fewer than d.
        """
        scores = (features - self.mean) @ self.components[:, : self.dim]
        scores = scores / self.spread[: self.dim].clamp(min=1e-6) ** self.whitening
        return _filled_up(normalize(scores), self.dim)

    def conditions(self, features: Tensor) -> Tensor:
        """Condition of the generator, float32 (items, c) → (items, condition_dim or c)."""
        centred = (features - self.mean) / self.scale
        if self.condition_dim:
            components = self.components[:, : self.condition_dim]
            return _filled_up(centred @ components, self.condition_dim)
        return centred

    @property
    def condition_size(self) -> int:
        """Dimensions of a condition."""
        return self.condition_dim or len(self.mean)

    def state(self) -> dict[str, Tensor | int | float]:
        """What a checkpoint keeps."""
        return dict(self.__dict__)


def _filled_up(rows: Tensor, columns: int) -> Tensor:
    return pad(rows, (0, columns - rows.shape[1]))
