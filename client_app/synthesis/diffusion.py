"""Denoising diffusion of latents: noise schedules, a denoiser, and sampling from any start.

Ho, Jain, Abbeel: Denoising Diffusion Probabilistic Models (arXiv 2006.11239), and what SDRM's
published code makes of it (arXiv 2311.03488).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

ScheduleKind = Literal["linear", "scaled", "cosine"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""Predicted noise, float32 (rows, latent), in latents of that shape at steps, int64 (rows,)."""

BETAS = (1e-4, 0.02)
"""First and last β of the linear schedule (DDPM, section 4, where T = 1000)."""

_MOST_BETA = 0.999
_EMBEDDING_BASE = 10_000


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule over the steps 0 … T; step 0 is without noise.

    Parameters
    ----------
    betas : Tensor, float32 (T + 1,)
        β_t; that of step 0 is never used in sampling.
    alpha_bars : Tensor, float32 (T + 1,)
        ᾱ_t, the share of the variance that is signal; 1 at step 0.
    """

    betas: Tensor
    alpha_bars: Tensor

    @classmethod
    def of(cls, kind: ScheduleKind, steps: int, device: torch.device | None = None) -> "Schedule":
        """A schedule of T steps.

        Parameters
        ----------
        kind : 'linear', 'scaled' or 'cosine'
            β evenly from 1e-4 to .02 whatever T is, as SDRM's code has it; the same times
            1000 / T, so that it ends near N(0, I) for every T; or ᾱ along a squared cosine
            (Nichol and Dhariwal, arXiv 2102.09672, equation 17).
        steps : int
            T.
        device : torch.device, optional
        """
        if kind == "cosine":
            at = torch.arange(steps + 1, dtype=torch.float64) / steps
            bars = ((at + 0.008) / 1.008 * math.pi / 2).cos().square()
            betas = F.pad(1 - bars[1:] / bars[:-1], (1, 0)).clamp(max=_MOST_BETA)
        else:
            betas = torch.linspace(*BETAS, steps + 1, dtype=torch.float64)
            if kind == "scaled":
                betas = (betas * 1000 / steps).clamp(max=_MOST_BETA)
        alpha_bars = (1 - betas).cumprod(0)
        alpha_bars[0] = 1
        return cls(betas.float().to(device), alpha_bars.float().to(device))

    @property
    def steps(self) -> int:
        """T."""
        return len(self.betas) - 1

    def noised(self, latents: Tensor, noise: Tensor, steps: Tensor, published: bool) -> Tensor:
        """z_t = √ᾱ_t z + √(1 − ᾱ_t) n, float32 (rows, latent).

        Parameters
        ----------
        latents, noise : Tensor, float32 (rows, latent)
        steps : Tensor, int64 (rows,)
        published : bool
            Whether noise has the factor 1 − ᾱ_t in place of its root, as in SDRM's code.
        """
        bars = self.alpha_bars[steps][:, None]
        return bars.sqrt() * latents + (1 - bars if published else (1 - bars).sqrt()) * noise

    def noise_of(self, velocity: Tensor, noised: Tensor, steps: Tensor) -> Tensor:
        """Noise n = √ᾱ_t v + √(1 − ᾱ_t) z_t in z_t, float32 (rows, latent), from its velocity.

        Velocity v = √ᾱ_t n − √(1 − ᾱ_t) z (Salimans and Ho, arXiv 2202.00512, appendix D): errors
        of it, unlike those of the noise, are not magnified where almost all is noise.
        """
        bars = self.alpha_bars[steps][:, None]
        return bars.sqrt() * velocity + (1 - bars).sqrt() * noised

    def velocity_of(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """Velocity of latents and noise at steps, float32 (rows, latent)."""
        bars = self.alpha_bars[steps][:, None]
        return bars.sqrt() * noise - (1 - bars).sqrt() * latents


def time_embedding(steps: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of steps at falling frequencies, float32 (rows, width).

    Parameters
    ----------
    steps : Tensor, int64 (rows,)
    width : int
        An odd one has a zero at its end.
    """
    half = width // 2
    falling = torch.arange(half, device=steps.device) / max(half, 1)
    angles = steps[:, None] * (-math.log(_EMBEDDING_BASE) * falling).exp()
    return F.pad(torch.cat([angles.cos(), angles.sin()], 1), (0, width - 2 * half))


class Denoiser(nn.Module):
    """SDRM's network: a latent and a step in, the noise of the latent out.

    Parameters
    ----------
    latent, steps : int
        Z, and T, which is also the width of the step's embedding.
    width, layers : int
        Of its hidden layers, and how many there are after the first one.
    shared : bool
        Whether these are one layer, repeated, as in the published code.
    dropout : float
        Share of a latent's entries that it does not see; see ``dropping``.
    bounded : bool
        Whether a tanh bounds the noise that it predicts, as in the published code.
    """

    def __init__(
        self,
        latent: int,
        steps: int,
        width: int,
        layers: int,
        shared: bool,
        dropout: float,
        bounded: bool,
    ) -> None:
        super().__init__()
        self.steps, self.dropout, self.bounded = steps, dropout, bounded
        self.dropping = True
        """Whether entries are dropped, as in all training, and in the published code's sampling."""
        self.time = nn.Linear(steps, steps)
        self.first = nn.Sequential(nn.Linear(latent + steps, width), nn.PReLU())
        hidden = [_hidden(width) for _ in range(min(layers, 1) if shared else layers)]
        self.hidden = nn.ModuleList(hidden)
        self.repeats = layers if shared and layers else 1
        self.last = nn.Linear(width, latent)

    def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
        """Noise, float32 (rows, latent), in latents of that shape at steps, int64 (rows,)."""
        time = self.time(time_embedding(steps, self.steps))
        seen = F.dropout(latents, self.dropout, self.dropping)
        state = self.first(torch.cat([seen, time], dim=1))
        for _ in range(self.repeats):
            for layer in self.hidden:
                state = layer(state)
        noise: Tensor = self.last(state)
        return noise.tanh() if self.bounded else noise


def _hidden(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.PReLU())


def denoise(
    predict: Predict, schedule: Schedule, latents: Tensor, starts: Tensor, noise_scale: float
) -> Tensor:
    """Latents that are denoised from their own steps down to 0, all at once.

    At each step i, from the last to the first, those that started there or later go
    z ← (z − f(z, i) β_i / √(1 − ᾱ_i)) / √α_i + ν √β_i ξ, with ξ ~ N(0, I), and ξ = 0 at i = 1
    (DDPM, algorithm 2; SDRM, algorithm 2).

    Parameters
    ----------
    predict : Predict
    schedule : Schedule
    latents : Tensor, float32 (rows, latent)
    starts : Tensor, int64 (rows,)
        Step, 0 to T, at which each of them starts.
    noise_scale : float
        ν.

    Returns
    -------
    Tensor, float32 (rows, latent)
    """
    latents = latents.clone()
    for i in range(int(starts.max()), 0, -1):
        active = (starts >= i).nonzero()[:, 0]
        state, beta = latents[active], schedule.betas[i]
        noise = predict(state, torch.full_like(active, i))
        state = (state - noise * beta / (1 - schedule.alpha_bars[i]).sqrt()) / (1 - beta).sqrt()
        if i > 1:
            state = state + noise_scale * beta.sqrt() * torch.randn_like(state)
        latents[active] = state
    return latents
