"""Items' features from their embeddings: the inversion attack of MDiffFR, section 6.7.

Fu, Zhang, Zou and Li, "MDiffFR: Modality-Guided Diffusion Generation for Cold-start Items in
Federated Recommendation", arXiv 2512.24715. Who knows some items' features and all embeddings
trains a network from embeddings to features (equation 44), and applies it to the other items.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WIDTH = 256
EPOCHS = 400
PATIENCE = 40
LR = 1e-3
WEIGHT_DECAY = 1e-3
_HELD_BACK = 0.2
"""Share of the known items by which the network's epoch is chosen."""


@dataclass(frozen=True)
class Leakage:
    """How near inverted features are to the true ones.

    Parameters
    ----------
    mse, mae : float
        Means over items and columns, of features with mean 0 and deviation 1 over all columns:
        an attacker who guesses the mean has an MSE of about 1.
    cosine, pearson : float
        Means over items; 0 is guessing.
    structure : float
        Mean absolute difference between true and inverted cosines of pairs of items.
    items : int
        Whose features were inverted.
    """

    mse: float
    mae: float
    cosine: float
    pearson: float
    structure: float
    items: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def standardised(features: np.ndarray) -> np.ndarray:
    """Features with mean 0 in each column and deviation 1 over all of them, float32 (items, c)."""
    centred = features - features.mean(0)
    return (centred / max(float(centred.std()), 1e-12)).astype(np.float32)


def parted(items: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items whose features are known, and the others, int64 each."""
    order = np.random.default_rng([seed, 11]).permutation(items)
    known = max(2, round(share * items))
    return np.sort(order[:known]), np.sort(order[known:])


def inverted(
    embeddings: np.ndarray, features: np.ndarray, known: np.ndarray, seed: int
) -> np.ndarray:
    """What a network that is trained on the known items makes of all embeddings.

    Parameters
    ----------
    embeddings : ndarray, float32 (items, d)
    features : ndarray, float32 (items, c)
        Only rows of ``known`` are read.
    known : ndarray, int64 (known,)
    seed : int

    Returns
    -------
    ndarray, float32 (items, c)
    """
    spread = np.maximum(embeddings.std(0), 1e-6)
    x = torch.from_numpy(((embeddings - embeddings.mean(0)) / spread).astype(np.float32))
    y = torch.from_numpy(features[known].astype(np.float32))
    held = max(1, round(_HELD_BACK * len(known)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, y.shape[1]),
        )  # fmt: skip
        own = x[known]
        return _fitted(network, own[held:], y[held:], own[:held], y[:held], x).numpy()


def _fitted(
    network: nn.Module, x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor, every: Tensor
) -> Tensor:
    """What the network makes of ``every`` row at the epoch that is best on what was held back."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    best, made, since = float("inf"), torch.zeros(len(every), y.shape[1]), 0
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            loss = float(nn.functional.mse_loss(network(held_x), held_y))
            since += 1
            if loss < best:
                best, made, since = loss, network(every), 0
        if since > PATIENCE:
            break
    return made


def leakage(true: np.ndarray, made: np.ndarray) -> Leakage:
    """Compare true with inverted features, float32 (items, c) each."""
    gap = made.astype(np.float64) - true
    difference = structure(made) - structure(true)
    pairs = ~np.eye(len(true), dtype=bool)
    return Leakage(
        mse=float((gap**2).mean()),
        mae=float(np.abs(gap).mean()),
        cosine=float(_cosines(true, made).mean()),
        pearson=float(_cosines(_centred(true), _centred(made)).mean()),
        structure=float(np.abs(difference[pairs]).mean()) if pairs.any() else 0.0,
        items=len(true),
    )


def structure(rows: np.ndarray) -> np.ndarray:
    """Cosines of all pairs of rows, float64 (items, items)."""
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(units @ units.T, dtype=np.float64)


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(1) / np.maximum(sizes, 1e-12))


def _centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(1, keepdims=True)
