"""DP-SGD for networks of linear layers: a bound on each user's gradient, and noise on their sum.

Abadi et al.: Deep Learning with Differential Privacy (arXiv 1607.00133), algorithm 1, with Poisson
sampling. Norms of users' gradients come from the layers' inputs and from the gradients of their
outputs (Goodfellow, arXiv 1510.01799), so no user's own gradient is ever held, however wide the
layers are; ε is `opacus`' (Rényi differential privacy of the sampled Gaussian mechanism).
"""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn
from torch.optim import Optimizer

from client_app.synthesis.loop import Losses
from client_app.synthesis.multivae import SparseLinear
from common.errors import SnowdropError

MOST_NOISE = 1e4
"""Largest noise multiplier that is tried."""

ORDERS = [*range(2, 64), 72, 96, 128, 192, 256, 512]
"""Orders of Rényi divergence that are tried; fractions between them take a hundred times longer."""

COUNT_SHARE = 0.05
"""Share of ε that the share of filled cells takes."""


@dataclass(frozen=True)
class Budget:
    """What makes a training private.

    Parameters
    ----------
    noise : float
        Noise multiplier: the standard deviation of the noise is this times the bound.
    clip : float
        L2 bound on a user's gradient.
    secure : bool
        Whether noise and batches come from the operating system's generator, so that nobody can
        draw them again; else from torch's.
    """

    noise: float
    clip: float
    secure: bool


@dataclass(frozen=True)
class Training:
    """What privacy depends on in a training.

    Parameters
    ----------
    rate : float
        Share of the users that a step takes, each independently.
    steps : int
    """

    rate: float
    steps: int

    @classmethod
    def of(cls, users: int, batch: int, epochs: int) -> "Training":
        """A training with as many steps in an epoch as users fill batches."""
        return cls(min(1.0, batch / users), epochs * math.ceil(users / batch))


def spent(noise: float, trainings: Sequence[Training], delta: float) -> float:
    """ε of trainings with one noise multiplier, one after the other.

    Raises
    ------
    SnowdropError
        If `opacus` is not installed.
    """
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise SnowdropError(
            "a setting epsilon above 0 needs opacus: pip install 'snowdrop[synthetic]'"
        ) from error
    accountant = RDPAccountant()
    accountant.history = [(noise, own.rate, own.steps) for own in trainings]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orders at the end of the range, while noise is sought
        return float(accountant.get_epsilon(delta, alphas=ORDERS))


def noise_multiplier(epsilon: float, delta: float, trainings: Sequence[Training]) -> float:
    """Smallest noise multiplier, to three digits, with which trainings spend at most ε.

    Raises
    ------
    SnowdropError
        If no noise is enough, or `opacus` is not installed.
    """
    low, high = 0.0, 1.0
    while spent(high, trainings, delta) > epsilon:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise SnowdropError(
                f"no noise gives ε = {epsilon:g} at δ = {delta:g} over so many steps: raise "
                "epsilon or delta, or train for fewer epochs"
            )
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle, trainings, delta) > epsilon else (low, middle)
    return high


def freeze_others(network: nn.Module) -> None:
    """Freeze what is no linear layer, such as the slope of a PReLU: it gets no gradient."""
    for module in network.modules():
        if not isinstance(module, nn.Linear | SparseLinear):
            for values in module.parameters(recurse=False):
                values.requires_grad_(False)


class PrivateGradients:
    """Bounded, noisy gradients of a network of linear layers.

    Parameters
    ----------
    network : nn.Module
        Each user of a batch must have its own rows of all inputs, and its own loss.
    budget : Budget
    """

    def __init__(self, network: nn.Module, budget: Budget) -> None:
        freeze_others(network)
        self._network, self._budget = network, budget
        self._uses: dict[nn.Module, list[tuple[Any, Tensor]]] = {}
        for module in network.modules():
            if isinstance(module, nn.Linear | SparseLinear):
                module.register_forward_hook(self._seen)

    def _seen(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad:
            self._uses.setdefault(module, []).append((inputs, output))

    def epoch(
        self, users: int, batch: int, number: int, losses: Losses, optimizer: Optimizer
    ) -> float:
        """One pass, as `loop.epoch`: its steps take each user with probability batch / users."""
        device = next(self._network.parameters()).device
        own = Training.of(users, batch, 1)
        total, seen = torch.zeros((), device=device), 0
        for at in range(own.steps):
            chosen = self.batch(users, own.rate, device)
            self._uses.clear()
            optimizer.zero_grad(set_to_none=True)
            found = losses(chosen, number * own.steps + at) if len(chosen) else None
            self.write(found, own.rate * users)
            optimizer.step()
            if found is not None:
                total += found.detach().sum()
                seen += len(found)
        self._uses.clear()
        return float(total) / max(seen, 1)

    def batch(self, users: int, rate: float, device: torch.device) -> Tensor:
        """Users of a step, int64: each independently with that probability."""
        if self._budget.secure:
            drawn = torch.from_numpy(_system_uniform(users)).to(device)
        else:
            drawn = torch.rand(users, dtype=torch.float64, device=device)
        return (drawn < rate).nonzero()[:, 0]

    def norms(self, losses: Tensor) -> Tensor:
        """L2 norm of the gradient of each user's loss, float32 (users,).

        A layer that is used several times has gradient Σ_u b_u a_uᵀ, with inputs a_u and gradients
        b_u of the outputs; its squared norm is Σ_u Σ_v (a_u·a_v + 1) (b_u·b_v), with the bias.
        """
        outputs = [output for every in self._uses.values() for _, output in every]
        slopes = iter(torch.autograd.grad(losses.sum(), outputs, retain_graph=True))
        squares = torch.zeros_like(losses)
        for module, every in self._uses.items():
            own = [(inputs, next(slopes)) for inputs, _ in every]
            for inputs, slope in own:
                for others, other_slope in own:
                    squares += _products(module, inputs, others) * (slope * other_slope).sum(1)
        return squares.clamp(min=0).sqrt()

    def write(self, losses: Tensor | None, expected: float) -> None:
        """Fill ``grad`` of every parameter: (Σ clipped gradients + noise) / expected users.

        Parameters
        ----------
        losses : Tensor, float32 (users,), optional
            Of the users of this step, where there are any.
        expected : float
            Users that a step has on average.
        """
        clip = self._budget.clip
        deviation = self._budget.noise * clip
        if losses is not None:
            scale = (clip / self.norms(losses).clamp(min=1e-12)).clamp(max=1)
            (losses * scale.detach()).sum().backward()
        for values in self._network.parameters():
            if values.requires_grad:
                summed = torch.zeros_like(values) if values.grad is None else values.grad
                values.grad = (summed + deviation * self._drawn(values)) / expected

    def _drawn(self, like: Tensor) -> Tensor:
        """N(0, 1) of a tensor's shape."""
        if not self._budget.secure:
            return torch.randn_like(like)
        normal = ndtri(_system_uniform(like.numel())).astype(np.float32)
        return torch.from_numpy(normal).reshape(like.shape).to(like.device)


def _products(module: nn.Module, inputs: tuple[Any, ...], others: tuple[Any, ...]) -> Tensor:
    """a·a' + 1 of each user, for two inputs of a layer, float32 (users,)."""
    if isinstance(module, SparseLinear):  # used once
        rows, values = inputs
        squares = torch.zeros(len(rows), device=values.device)
        return squares.index_add(0, rows.row_of, values.square()) + 1
    return (inputs[0] * others[0]).sum(1) + 1


def _system_uniform(count: int) -> np.ndarray:
    """Uniform numbers strictly between 0 and 1 from the operating system, float64 (count,)."""
    bits = np.frombuffer(os.urandom(8 * count), dtype=np.uint64) >> np.uint64(12)
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


def noised_share(counts: np.ndarray, items: int, most: int, epsilon: float, secure: bool) -> float:
    """Share of the cells that users fill, with Laplace noise: ε-differentially private.

    Parameters
    ----------
    counts : ndarray, int64 (users,)
        Items of each user; no more than ``most`` of each count. Their number is not hidden.
    items, most : int
    epsilon : float
    secure : bool
        As in `Budget`.
    """
    drawn = float(_system_uniform(1)[0] if secure else torch.rand((), dtype=torch.float64)) - 0.5
    noise = -math.copysign(math.log(max(1 - 2 * abs(drawn), 2.0**-53)), drawn)  # Laplace(1)
    filled = np.minimum(counts, most).sum() + noise * most / epsilon
    cells = len(counts) * items
    return float(np.clip(filled / cells, 1 / cells, 1))
