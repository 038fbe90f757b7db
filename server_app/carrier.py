"""What carries scores over from warm items to new ones: weights of texts, in few numbers."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from common.catalogue import COLD_SPLITS
from common.methods.carried import CarriedSettings
from common.settings import weighted_modalities
from server_app.compact import Compact, compact, compact_by_landmarks
from server_app.kernels import ridge_weights
from server_app.methods.base import World
from server_app.methods.kernel_ridge import item_units, text_weights

WHOLE, LANDMARKS = 2**14, 2**12
"""Warm items up to which their kernel is a matrix, of 1 GB, and those of a larger catalogue whose
kernel is decomposed in its place."""


class Carrier:
    """The weights of kernel ridge on the features that the setting ``modality`` names.

    Parameters
    ----------
    world : World
        Keeps what was made of the same items and settings.
    kernel : CarriedSettings
    """

    def __init__(self, world: World, kernel: CarriedSettings) -> None:
        self._world, self._kernel = world, kernel

    @property
    def features(self) -> tuple[Any, ...]:
        """All settings that `units` depend on."""
        kernel = self._kernel
        words = kernel.words, kernel.word_dim
        return kernel.dim, *words, kernel.whitening, self._world.settings.modality

    @property
    def units(self) -> np.ndarray:
        """Features of all items beside the words of their texts, unit rows, float32 (items, k)."""
        return self._world.once(("units", *self.features), self._made_units)

    @cached_property
    def warm(self) -> np.ndarray:
        """The same of the warm items."""
        return self.units[self._world.rows("warm")]

    def weights(self, splits: Sequence[str]) -> Compact:
        """The weights of the items of one cold split, or of both, on the warm ones."""
        kernel = self._kernel
        shape = kernel.sharpness, kernel.ridge, kernel.rank, kernel.neighbours
        key = "carrier", *self.features, *shape
        whole: Compact = self._world.once(key, self._made_weights)
        if list(splits) == list(COLD_SPLITS):
            return whole
        (split,) = splits
        bound = len(self._world.rows(COLD_SPLITS[0]))
        return whole.rows(slice(None, bound) if split == COLD_SPLITS[0] else slice(bound, None))

    def arrays(self, splits: Sequence[str], prefix: str = "") -> dict[str, np.ndarray]:
        """What nodes need of `weights`, by names that begin with ``prefix``."""
        weights = self.weights(splits)
        return {
            f"{prefix}items": weights.items,
            f"{prefix}columns": weights.columns,
            f"{prefix}values": weights.values,
            f"{prefix}warm": weights.warm,
        }

    def among_warm(self, known: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Weights of some warm items on others, float32 (new, known).

        Parameters
        ----------
        known, new : ndarray, int64
            Rows of the warm items; of more than `LANDMARKS` known ones, so many are drawn.
        """
        weights = np.zeros((len(new), len(known)), np.float32)
        drawn = self._drawn(len(known)) if len(known) > WHOLE else np.arange(len(known))
        kernel = self._kernel.sharpness, self._kernel.ridge
        weights[:, drawn] = ridge_weights(self.warm[known[drawn]], self.warm[new], *kernel)
        return weights

    def _made_units(self) -> np.ndarray:
        world, kernel = self._world, self._kernel
        features = world.blocks().beside(world.features)
        texts = "text" in weighted_modalities(world.settings.modality)
        return item_units(world, kernel, features, kernel.words if texts else 0.0)

    def _made_weights(self) -> Compact:
        kernel = self._kernel
        if len(self.warm) <= WHOLE:
            weights = text_weights(self._world, kernel, self.units)
            return compact(weights, kernel.rank, kernel.neighbours)
        cold = self.units[self._world.rows(COLD_SPLITS)]
        shape = kernel.sharpness, kernel.ridge, kernel.rank, kernel.neighbours
        return compact_by_landmarks(self.warm, cold, *shape, self._drawn(len(self.warm)))

    def _drawn(self, items: int) -> np.ndarray:
        rng = np.random.default_rng(self._world.settings.seed)
        return np.sort(rng.permutation(items)[:LANDMARKS])
