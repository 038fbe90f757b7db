"""Kernel ridge: nodes get each item as a weighted sum of warm items, fitted to texts alone."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from common.catalogue import COLD_SPLITS
from common.methods.kernel_ridge import KernelRidgeSettings
from server_app import kernels
from server_app.methods.base import Rule, Scoring, World


class KernelRidge(Rule[KernelRidgeSettings]):
    """Needs no training; (K + λ I)⁻¹ k on encoded texts beside their words."""

    def scoring(self, splits: Sequence[str]) -> Scoring:
        return Scoring("weights", {"weights": np.concatenate([self._weights[s] for s in splits])})

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        """Weights of the items of each cold split, float32 (items, warm), factorised once."""
        weights = text_weights(self.world, self.own, text_units(self.world, self.own))
        bound = len(self.world.rows(COLD_SPLITS[0]))
        return dict(zip(COLD_SPLITS, np.split(weights, [bound]), strict=True))


def text_units(world: World, own: KernelRidgeSettings) -> np.ndarray:
    """Encoded texts beside their words, as unit rows, float32 (items, k)."""
    return item_units(world, own, world.modality("text"), own.words)


def item_units(
    world: World, own: KernelRidgeSettings, features: Tensor, words: float
) -> np.ndarray:
    """Features of items, float32 (items, c), beside the words of their texts, as unit rows."""
    rows = world.rows("warm")
    parts = [(1.0, kernels.half_whitened(features.numpy(), rows, own.dim, own.whitening))]
    if words:
        # Frequent words cost the ridge nothing, and leaving them out does.
        terms = kernels.word_features(world.catalogue.texts, rows, stop_words=None)
        latent = kernels.latent_words(terms, rows, own.word_dim, own.whitening)
        parts.append((words, latent))
    return kernels.side_by_side(parts)


def text_weights(world: World, own: KernelRidgeSettings, units: np.ndarray) -> np.ndarray:
    """Each cold item as a weighted sum of warm ones, float32 (cold, warm), split after split."""
    warm, cold = units[world.rows("warm")], units[world.rows(COLD_SPLITS)]
    return kernels.ridge_weights(warm, cold, own.sharpness, own.ridge)
