"""How far generated embeddings lie from those of warm items.

Two measures, each against what warm items themselves reach: a random half of the warm items is
the reference, the other half is held out, and generated items and held-out items are compared to
the reference in equal numbers, so that both carry the same bias of small samples.
"""

from dataclasses import dataclass

import numpy as np
import torch

MOST = 2_000
"""Items of each kind that are compared."""


@dataclass(frozen=True, eq=False)
class Misalignment:
    """Generated items and held-out warm items, each against the same reference.

    Fréchet distances are shares of the reference's total variance, nearest-neighbour distances
    multiples of the held-out items' median: methods whose embeddings differ in scale compare.
    """

    frechet_generated: float
    frechet_held_out: float
    nearest_generated: np.ndarray  # float64 (items,)
    nearest_held_out: np.ndarray  # float64 (items,)

    @property
    def items(self) -> int:
        """Items of each kind."""
        return len(self.nearest_generated)


def misalignment(warm: np.ndarray, generated: np.ndarray, seed: int = 0) -> Misalignment | None:
    """Compare generated embeddings with warm ones, or None where too few or not finite.

    Parameters
    ----------
    warm : ndarray, float (warm, d)
    generated : ndarray, float (cold, d)
    seed : int
        Of the halves and the samples.
    """
    rng = np.random.default_rng(seed)
    warm = rng.permutation(np.asarray(warm, dtype=np.float64))
    generated = rng.permutation(np.asarray(generated, dtype=np.float64))
    half = len(warm) // 2
    size = min(half, len(generated), MOST)
    if size < 2 or not (np.isfinite(warm).all() and np.isfinite(generated).all()):
        return None
    reference, held_out, made = warm[:size], warm[half : half + size], generated[:size]
    scale = float(reference.var(axis=0, ddof=1).sum())
    near_held, near_made = (_nearest(rows, reference) for rows in (held_out, made))
    middle = float(np.median(near_held))
    if scale == 0 or middle == 0:
        return None
    return Misalignment(
        frechet_generated=frechet_distance(reference, made) / scale,
        frechet_held_out=frechet_distance(reference, held_out) / scale,
        nearest_generated=near_made / middle,
        nearest_held_out=near_held / middle,
    )


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of points.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½), as in the Fréchet inception distance.

    Parameters
    ----------
    first, second : ndarray, float (points, d)
        At least two points each.
    """
    gap = first.mean(axis=0) - second.mean(axis=0)
    one, two = (np.atleast_2d(np.cov(points, rowvar=False)) for points in (first, second))
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(min=0)).sum()
    return float(gap @ gap + np.trace(one) + np.trace(two) - 2 * cross)


def _nearest(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest of the reference, float64 (points,)."""
    return torch.cdist(torch.from_numpy(points), torch.from_numpy(reference)).amin(1).numpy()
