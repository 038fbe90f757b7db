"""Users' vectors by weighted least squares on all items, and what they ask of item embeddings.

Ammad-ud-din, Ivannikova, Khan, Oyomno, Fu, Tan and Flanagan, "Federated Collaborative Filtering for
Privacy-Preserving Personalized Recommendation System" (arXiv 1901.09888), after Hu, Koren and
Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008. With p_ui = 1 for an
interaction and 0 else, and c_ui = 1 + α p_ui, users and server minimise

    Σ_u Σ_i c_ui (p_ui − x_u · y_i)² + λ (Σ_u ‖x_u‖² + Σ_i ‖y_i‖²).

A user's vector is solved for the item table that it is given; a node tells the sum over its users
of c_ui (p_ui − x_u · y_i) x_u for each item, half the negative gradient without λ.
"""

import numpy as np
import torch
from torch import Tensor

from common.settings import TrainingSettings
from common.users.mechanism import mechanism_of, powers
from common.users.ragged import Ragged
from common.users.training import RoundResult, participants

CHUNK_NUMBERS = 2**22
"""Numbers of float32 that a chunk of users may take for its scores of all items."""


def vectors(table: Tensor, histories: Ragged, confidence: float, ridge: float) -> Tensor:
    """x_u = (Yᵀ Y + α Σ_{i of u} y_i y_iᵀ + λ I)⁻¹ (1 + α) Σ_{i of u} y_i, float32 (users, d).

    Parameters
    ----------
    table : Tensor, float32 (warm, d)
        The item embeddings y_i.
    histories : Ragged
    confidence : float
        α.
    ridge : float
        λ.
    """
    users, dim = len(histories.counts), table.shape[1]
    owner = torch.from_numpy(np.repeat(np.arange(users), histories.counts))
    own = table[torch.from_numpy(histories.items)]
    wanted = torch.zeros(users, dim).index_add_(0, owner, own)
    squares = torch.zeros(users, dim, dim)
    step = max(1, CHUNK_NUMBERS // dim**2)
    for k in range(0, len(own), step):
        rows = own[k : k + step]
        squares.index_add_(0, owner[k : k + step], rows[:, :, None] * rows[:, None, :])
    shared = table.T @ table + ridge * torch.eye(dim)
    solved, _ = torch.linalg.solve_ex(shared + confidence * squares, (1 + confidence) * wanted)
    return solved  # of a matrix that has no inverse: no numbers, and no error that tells whose


def chunks(users: np.ndarray, warm: int, dim: int) -> list[np.ndarray]:
    """Users in parts whose scores and matrices fit into `CHUNK_NUMBERS`."""
    size = max(1, CHUNK_NUMBERS // max(warm, dim**2))
    return [users[k : k + size] for k in range(0, len(users), size)]


def least_squares_round(
    table: Tensor,
    histories: Ragged,
    keys: np.ndarray,
    number: int,
    settings: TrainingSettings,
    confidence: float,
    ridge: float,
) -> RoundResult:
    """What the users of a round ask of the item embeddings; their vectors need not be kept.

    Parameters
    ----------
    table : Tensor, float32 (warm, d)
    histories : Ragged
        Warm interactions of all users.
    keys : ndarray, uint64 (users,)
    number : int
        Of the round.
    settings : TrainingSettings
    confidence, ridge : float
        α and λ.

    Returns
    -------
    RoundResult
        ``change`` is the sum over users of c_ui (p_ui − x_u · y_i) x_u, and every row is touched by
        all of them; ``loss_sum`` that of each user's mean of c_ui (p_ui − x_u · y_i)² over items.
    """
    warm, dim = table.shape
    mechanism = mechanism_of(settings)
    asked = participants(keys, number, settings.fraction)
    change, loss = torch.zeros(warm, dim, dtype=mechanism.dtype), 0.0
    for users in chunks(asked, warm, dim):
        own = histories.take(users)
        found = vectors(table, own, confidence, ridge)
        owner = torch.from_numpy(np.repeat(np.arange(len(users)), own.counts))
        items = torch.from_numpy(own.items)
        left = -(found @ table.T)  # float32 (users, warm): p − x · y
        left[owner, items] += 1
        weighted = left.clone()
        weighted[owner, items] *= 1 + confidence
        losses = (weighted * left).double().mean(1)
        if settings.hides_losses:  # who overflowed gives nothing, as in `train_round`
            whole = (
                torch.isfinite(losses)
                & torch.isfinite(weighted).all(1)
                & torch.isfinite(found).all(1)
            )
            weighted[~whole], found[~whole], losses[~whole] = 0.0, 0.0, 0.0
        loss += float(losses.sum())
        order = mechanism.order  # and of a product of two vectors, Σ |x|^order is a product, too
        lengths = powers(weighted, order).sum(1) * powers(found, order).sum(1)
        kept = mechanism.kept(torch.zeros(len(users), 1, 1), lengths)
        if mechanism.dtype == torch.int64:
            for each, vector, share in zip(weighted.double(), found.double(), kept, strict=True):
                change += mechanism.parts((each[:, None] * vector)[None], share[None])[0]
        else:
            change += weighted.T @ (found * kept[:, None])
    change += mechanism.noise(len(asked), (warm, dim))
    touches = torch.full((warm,), len(asked), dtype=torch.int64)
    return RoundResult(change, touches, loss, len(asked))
