"""Membership attack: the likelihood of users under a model that was trained on synthetic ones."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from client_app.synthesis.base import Watch, unwatched
from client_app.synthesis.loop import Keeper, Stage, run, seeded
from client_app.synthesis.multivae import (
    MultiVAE,
    annealed,
    losses,
    negative_log_likelihood,
)
from client_app.synthesis.rows import Rows

HIDDEN, LATENT, DROPOUT = 200, 64, 0.5
LR, KL_WEIGHT, KL_UPDATES = 1e-3, 0.2, 20_000
BATCH = 200
UPDATES, EPOCHS = 1500, 100
"""Steps of the training, in at most so many passes."""

STAGE = "likelihood attack"


def likelihoods(
    targets: Sequence[csr_array],
    synthetic: csr_array,
    seed: int,
    device: torch.device | None = None,
    watch: Watch = unwatched,
) -> list[np.ndarray]:
    """Attack: mean log-likelihood of each target's items under a MultiVAE of synthetic users.

    A model of the synthetic users finds those people likely to whom these are close (as the
    white-box attack of LOGAN does with a discriminator; Hayes et al., arXiv 1705.07663). The
    attacker needs nothing but the synthetic users.

    Parameters
    ----------
    targets : Sequence[csr_array], bool (targets, items) each
        Users with one item at least.
    synthetic : csr_array, bool (users, items)
    seed : int
    device : torch.device, optional
        Where it trains (default: the CPU).
    watch : Watch

    Returns
    -------
    list[ndarray], float64 (targets,) each

    Raises
    ------
    SnowdropError
        If the training overflows.
    """
    device = device or torch.device("cpu")
    network = _fitted(Rows.of(synthetic, device), seed, device, watch)
    return [_means(network, Rows.of(rows, device)) for rows in targets]


def _fitted(rows: Rows, seed: int, device: torch.device, watch: Watch) -> MultiVAE:
    with seeded(seed, STAGE, device):
        network = MultiVAE(rows.width, HIDDEN, LATENT, DROPOUT).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    batches = -(-len(rows) // BATCH)

    def epoch(number: int) -> float:
        total = torch.zeros((), device=device)
        order = torch.randperm(len(rows), device=device)
        for at, chosen in enumerate(order.split(BATCH)):
            weight = annealed(number * batches + at, KL_WEIGHT, KL_UPDATES)
            loss = losses(network, rows.take(chosen), weight).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(chosen)
        return float(total) / len(rows)

    epochs = min(EPOCHS, -(-UPDATES // batches))
    stage = Stage(STAGE, network, optimizer, epochs, epoch)
    run(stage, Keeper(None, ""), seed, device, watch)
    return network


@torch.no_grad()
def _means(network: MultiVAE, rows: Rows) -> np.ndarray:
    every = torch.arange(len(rows), device=rows.starts.device)
    parts = [_mean(network, rows.take(chosen)) for chosen in every.split(BATCH)]
    return torch.cat(parts).double().cpu().numpy()


def _mean(network: MultiVAE, rows: Rows) -> Tensor:
    logits = network.decode(network.encode(rows)[0])
    return -negative_log_likelihood(logits, rows) / rows.counts
