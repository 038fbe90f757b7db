"""DiffRec: a diffusion of users' rows, whose denoiser predicts the row without noise.

Wang, Xu, Feng, Lin, He, Chua: Diffusion Recommender Model (SIGIR 2023, arXiv 2304.04971); equation
numbers are the paper's. As a synthesizer it gets N(0, I) in place of a user's noised row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from client_app.synthesis.denoising import DenoisingSynthesizer
from client_app.synthesis.diffusion import time_embedding
from client_app.synthesis.rows import Rows
from common.methods.diffrec import DiffRecSettings

FIRST_BETA = 1e-5
"""β_1, whatever the schedule says, as in the published code."""

MOST_BETA = 0.999

HISTORY = 10
"""Losses of each step that are remembered (section 3.3)."""

UNIFORM = 0.001
"""Share of the draws of steps that does not look at losses."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise at the steps 0 … T; step 0 is without noise.

    Parameters
    ----------
    betas : Tensor, float64 (T + 1,)
        β_t; 0 at step 0.
    bars : Tensor, float64 (T + 1,)
        ᾱ_t; 1 at step 0.
    """

    betas: Tensor
    bars: Tensor

    @classmethod
    def of(cls, own: DiffRecSettings, device: torch.device) -> "Schedule":
        """1 − ᾱ_t = s · [α_min + (t − 1)/(T − 1) · (α_max − α_min)] (equation 4)."""
        noise = own.noise_scale * torch.linspace(
            own.noise_min, own.noise_max, own.steps, dtype=torch.float64
        )
        bars = F.pad(1 - noise, (1, 0), value=1.0)
        betas = F.pad(1 - bars[1:] / bars[:-1], (1, 0)).clamp(max=MOST_BETA)
        betas[1] = FIRST_BETA
        return cls(betas.to(device), (1 - betas).cumprod(0).to(device))

    def noised(self, rows: Tensor, steps: Tensor) -> Tensor:
        """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, float32 (rows, items) (equation 2).

        Parameters
        ----------
        rows : Tensor, float32 (rows, items)
        steps : Tensor, int64 (rows,)
        """
        bars = self.bars[steps][:, None]
        return bars.sqrt().float() * rows + (1 - bars).sqrt().float() * torch.randn_like(rows)

    def weights(self) -> Tensor:
        """Weight of each step's error, float32 (T + 1,): SNR(t − 1) − SNR(t), and 1 at step 1
        (equations 9 and 10); 0 at step 0."""
        ratio = self.bars[1:] / (1 - self.bars[1:])
        return F.pad(torch.cat([ratio.new_ones(1), ratio[:-1] - ratio[1:]]), (1, 0)).float()

    def posterior(self, step: int) -> tuple[float, float, float]:
        """What x̂_0 and x_t count in the mean of q(x_{t−1} | x_t, x̂_0), and its standard deviation
        (equations 6 and 7)."""
        beta, bar, before = (
            float(of) for of in (self.betas[step], self.bars[step], self.bars[step - 1])
        )
        clean = before**0.5 * beta / (1 - bar)
        noised = (1 - beta) ** 0.5 * (1 - before) / (1 - bar)
        return clean, noised, (beta * (1 - before) / (1 - bar)) ** 0.5


class StepSampler(nn.Module):
    """Draws steps, more often those of larger loss (section 3.3, equation 14).

    Parameters
    ----------
    steps : int
        T.
    """

    history: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("history", torch.full((steps, HISTORY), torch.nan))

    def probabilities(self) -> Tensor:
        """Of the steps 1 … T, float32 (T,); uniform until each has its history of losses."""
        steps = len(self.history)
        sizes = self.history.square().mean(1).sqrt()
        if not bool(sizes.isfinite().all() & (sizes > 0).any()):
            return torch.full((steps,), 1 / steps, device=self.history.device)
        return (1 - UNIFORM) * sizes / sizes.sum() + UNIFORM / steps

    def remember(self, steps: Tensor, losses: Tensor) -> None:
        """Keep the newest losses, float32 (rows,), of steps 1 … T, int64 (rows,)."""
        for step in range(len(self.history)):
            newest = losses[steps == step + 1][-HISTORY:]
            self.history[step] = torch.cat([self.history[step], newest])[-HISTORY:]


class Denoiser(nn.Module):
    """A row and a step in, the row without noise out (section 3.2)."""

    def __init__(self, items: int, own: DiffRecSettings) -> None:
        super().__init__()
        self.time_width, self.dropout = own.time_width, own.dropout
        inner = [own.bottleneck] if own.bottleneck else []
        widths = [
            items + own.time_width,
            own.hidden,
            *inner,
            *([own.hidden] if inner else []),
            items,
        ]
        self.time = nn.Linear(own.time_width, own.time_width)
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.steps = StepSampler(own.steps)
        for layer in (self.time, *self.layers):
            nn.init.xavier_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.001)

    def forward(self, rows: Tensor, steps: Tensor) -> Tensor:
        """Float32 (rows, items), of rows of that shape at steps, int64 (rows,)."""
        time = self.time(time_embedding(steps, self.time_width))
        state = torch.cat([F.dropout(rows, self.dropout, self.training), time], dim=1)
        for layer in self.layers[:-1]:
            state = layer(state).tanh()
        clean: Tensor = self.layers[-1](state)
        return clean


class DiffRecSynthesizer(DenoisingSynthesizer[DiffRecSettings, Denoiser]):
    """Denoises N(0, I) step by step."""

    def _network(self) -> Denoiser:
        self._schedule = Schedule.of(self.own, self.device)
        weights = self._schedule.weights()
        self._weights = weights if self.own.reweight else torch.ones_like(weights)
        return Denoiser(self.items, self.own)

    def _optimizer(self, network: Denoiser) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            network.parameters(), lr=self.own.lr, weight_decay=self.own.weight_decay
        )

    def _losses(self, network: Denoiser, users: Rows) -> Tensor:
        clean, sampler = users.dense(), network.steps
        shares = torch.full_like(self._weights[1:], 1 / self.own.steps)
        if self.own.importance:
            shares = sampler.probabilities()
        places = shares.multinomial(len(clean), replacement=True)
        steps = places + 1
        made = network(self._schedule.noised(clean, steps), steps)
        losses = self._weights[steps] * (made - clean).square().mean(1)
        sampler.remember(steps, losses.detach())
        return losses / (shares[places] * self.own.steps)

    def _recovered(self, network: Denoiser, users: Tensor) -> Tensor:
        return self._reversed(network, users, noise=False)

    def _denoised(self, network: Denoiser, noise: Tensor) -> Tensor:
        return self._reversed(network, noise, self.own.sampling_noise)

    def _reversed(self, network: Denoiser, state: Tensor, noise: bool) -> Tensor:
        for step in range(self.own.steps, 0, -1):
            made = network(state, torch.full((len(state),), step, device=self.device))
            clean, noised, deviation = self._schedule.posterior(step)
            state = clean * made + noised * state
            if noise and step > 1:
                state = state + deviation * torch.randn_like(state)
        return state
