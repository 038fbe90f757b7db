"""The denoiser ê_θ(e_t, t, m): predicts e_0 from a noisy embedding, the step and the modality.

MDiffFR, equations 16 and 17: a query made of e_t attends over two tokens, the projections of a
sinusoidal encoding of t and of the modality m.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from common.methods.mdifffr import MDiffFRSettings

_TIME_DIM = 16
_TIME_DIM_WIDE = 32
_DROPOUT = 0.1


def time_encoding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal encoding 𝒯_E(t) of diffusion steps (equation 16).

    Parameters
    ----------
    t : Tensor, int64 (n,)
    dim : int
        Even.

    Returns
    -------
    Tensor, float32 (n, dim)
        Cosines, then sines, of t · 10000^(−2k/dim).
    """
    half = dim // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Fusion(nn.Module):
    """h_fused of equation 17, or its ablations: without modality, or without attention."""

    def __init__(self, width: int, settings: MDiffFRSettings) -> None:
        super().__init__()
        self.guided = settings.guidance != "none"
        if settings.attention:
            self.attention = nn.MultiheadAttention(
                width, settings.attention_heads, batch_first=True
            )
        else:
            self.mix = nn.Linear(width * (3 if self.guided else 2), width)
        self.attends = settings.attention

    def forward(self, query: Tensor, time: Tensor, modality: Tensor) -> Tensor:
        """All float32 (n, width) → (n, width)."""
        guides = [time, modality] if self.guided else [time]
        if not self.attends:
            return self.mix(torch.cat([query, *guides], dim=1))
        if not self.guided:  # attention to one key alone would forget the query
            guides.append(query)
        keys = torch.stack(guides, dim=1)
        fused, _ = self.attention(query[:, None], keys, keys, need_weights=False)
        return fused[:, 0]


class PaperDenoiser(nn.Module):
    """The published network: d → d/2 → d → d/2 → d with tanh, on the fused representation.

    Without the published code's further layer on the stacked tokens and its initialisation.
    """

    def __init__(self, dim: int, condition_dim: int, settings: MDiffFRSettings) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.LayerNorm(dim), nn.Dropout(_DROPOUT))
        self.time = nn.Sequential(nn.Linear(_TIME_DIM, dim), nn.Tanh())
        self.modality = nn.Sequential(nn.Linear(condition_dim, dim), nn.Tanh())
        self.fusion = Fusion(dim, settings)
        self.after = nn.LayerNorm(dim)
        half = max(1, dim // 2)
        sizes = [dim, half, dim, half, dim]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(sizes):
            layers += [nn.Linear(inner, outer), nn.Tanh()]
        self.network = nn.Sequential(*layers[:-1])

    def forward(self, noisy: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """float32 (n, d), int64 (n,) from 1, float32 (n, c) → ê_0, float32 (n, d)."""
        time = self.time(time_encoding(t, _TIME_DIM))
        fused = self.fusion(self.before(noisy), time, self.modality(condition))
        return self.network(self.after(fused))


class ResidualDenoiser(nn.Module):
    """Ours: the same fusion, wider, with paths around it and a linear path from the modality."""

    def __init__(self, dim: int, condition_dim: int, settings: MDiffFRSettings) -> None:
        super().__init__()
        width = settings.width
        self.time = nn.Sequential(
            nn.Linear(_TIME_DIM_WIDE, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.modality = nn.Sequential(
            nn.Linear(condition_dim, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.query, self.skip = nn.Linear(dim, width), nn.Linear(dim, width)
        self.fusion = Fusion(width, settings)
        self.network = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, dim),
        )
        self.guided = settings.guidance != "none"
        self.linear = nn.Linear(condition_dim, dim)

    def forward(self, noisy: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """float32 (n, d), int64 (n,) from 1, float32 (n, c) → ê_0, float32 (n, d)."""
        modality = self.modality(condition)
        time = self.time(time_encoding(t, _TIME_DIM_WIDE))
        fused = self.fusion(self.query(noisy), time, modality) + 0.1 * self.skip(noisy)
        if not self.guided:
            return self.network(fused)
        return self.network(fused + modality) + self.linear(condition)


DENOISERS: dict[str, type[nn.Module]] = {"paper": PaperDenoiser, "residual": ResidualDenoiser}
