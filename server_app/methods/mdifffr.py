"""MDiffFR: modality-guided diffusion of item embeddings (equations 3 to 17, algorithms 1 and 2).

Fu, Zhang, Zou and Li, "MDiffFR: Modality-Guided Diffusion Generation for Cold-start Items in
Federated Recommendation". The forward process (equations 3 to 5) and the reverse steps (equations
9 to 11) are those of the schedulers of `diffusers`; the noise schedule, the denoiser, the loss
(equations 12 to 14) and the training are here.
"""

import math
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from common.methods.mdifffr import MDiffFRSettings
from server_app.methods.denoiser import DENOISERS
from server_app.methods.network import NetworkGenerator

_GENERATE_BATCH = 16_384


def betas(settings: MDiffFRSettings) -> np.ndarray:
    """Variances β_1 … β_T of the forward process, float64 (T,).

    'linear-variance' sets 1 − ᾱ_t = s · [α_min + (t − 1)/(T − 1) · (α_max − α_min)] (equation 6);
    'cosine' sets ᾱ_t = cos²((t/T + 0.008)/1.008 · π/2) (Nichol and Dhariwal, 2021), bounded.
    """
    steps = settings.steps
    t = np.arange(1, steps + 1)
    if settings.schedule == "linear-variance":
        slope = (settings.noise_max - settings.noise_min) / (steps - 1)
        kept = 1 - settings.noise_scale * (settings.noise_min + (t - 1) * slope)
    else:
        kept = np.clip(np.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2, 1e-4, 0.9999)
    return 1 - kept / np.concatenate([[1.0], kept[:-1]])


def snr_weights(alphas_cumprod: Tensor) -> Tensor:
    """Weight of each step in equation 12 as the published code has it, float32 (T,).

    SNR(t − 1) − SNR(t), without the factor ½, and 1 at the first step (equation 13).
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return torch.cat([torch.ones(1), snr[:-1] - snr[1:]])


class PosteriorMeanScheduler(DDPMScheduler):
    """Ancestral sampling without its noise: each step takes the mean of equation 11."""

    def _get_variance(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros(())


class AncestralScheduler(DDPMScheduler):
    """Ancestral sampling whose noise has ``strength`` times the deviation of equation 11."""

    strength = 1.0

    def _get_variance(self, *args: Any, **kwargs: Any) -> Tensor:
        variance: Tensor = super()._get_variance(*args, **kwargs)
        return self.strength**2 * variance


SAMPLERS = {"mean": PosteriorMeanScheduler, "ancestral": AncestralScheduler, "ddim": DDIMScheduler}


class MDiffFR(NetworkGenerator[MDiffFRSettings]):
    """Generates e_0 by reversing a diffusion of standardised item embeddings, guided by text."""

    def _begin(self) -> None:
        super()._begin()
        self.set_schedule()
        self._mean = torch.zeros(self.dim)
        self._scale = torch.ones(self.dim)

    def set_schedule(self) -> None:
        """The noise of each step, forward and in the sampler, and the weights of the loss."""
        own = self.own
        common = {
            "trained_betas": betas(own),
            "prediction_type": "sample",
            "clip_sample": False,
        }
        if own.sampler == "ddim":
            common |= {"set_alpha_to_one": True, "timestep_spacing": "trailing"}
        else:
            common["variance_type"] = "fixed_small"
        self._scheduler = SAMPLERS[own.sampler](own.steps, **common)
        if isinstance(self._scheduler, AncestralScheduler):
            self._scheduler.strength = own.sampling_noise
        weights = snr_weights(self._scheduler.alphas_cumprod.double()).float()
        plain = own.loss == "plain"
        self._weights = (torch.ones_like(weights) if plain else weights).to(self.device)

    def with_sampling_noise(self, level: float) -> Self:
        other = copy(self)
        other.own = self.own.model_copy(update={"sampler": "ancestral", "sampling_noise": level})
        other.set_schedule()
        return other

    def _build(self) -> nn.Module:
        return DENOISERS[self.own.denoiser](self.dim, self.condition_dim, self.own)

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        self._standardise(target)
        return super().fit((target - self._mean) / self._scale, self._guide(conditions, seed), seed)

    def _loss(self, target: Tensor, condition: Tensor) -> Tensor:
        """Equation 14, or equation 12 with 'snr', as a mean over items and dimensions."""
        own = self.own
        t = torch.randint(own.steps, (len(target),), device=self.device)
        noisy = self._scheduler.add_noise(target, torch.randn_like(target), t)
        if own.condition_noise:
            condition = condition + own.condition_noise * torch.randn_like(condition)
        if own.condition_dropout:
            kept = torch.rand(len(target), 1, device=self.device) >= own.condition_dropout
            condition = condition * kept
        error = (self._network(noisy, t + 1, condition) - target) ** 2
        return (error.mean(1) * self._weights[t]).mean()

    @torch.no_grad()
    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        """Algorithm 2, averaged over ``samples`` runs."""
        made = torch.zeros(len(conditions), self.dim)
        guides = self._guide(conditions, ~seed)  # not the noise that warm items had
        with self._seeded(seed):
            for _ in range(self.own.samples):
                parts = [self._sample(part) for part in guides.split(_GENERATE_BATCH)]
                made += torch.cat(parts)
        return made / self.own.samples * self._scale + self._mean

    def _sample(self, condition: Tensor) -> Tensor:
        condition = condition.to(self.device)
        sample = torch.randn(len(condition), self.dim).to(self.device)
        scheduler = self._scheduler
        steps = self.own.sampling_steps if self.own.sampler == "ddim" else 0
        scheduler.set_timesteps(steps or self.own.steps)
        for t in scheduler.timesteps:
            step = torch.full((len(condition),), int(t) + 1, device=self.device)
            predicted = self._network(sample, step, condition)
            if self.own.guidance_scale != 1:
                free = self._network(sample, step, torch.zeros_like(condition))
                predicted = free + self.own.guidance_scale * (predicted - free)
            sample = scheduler.step(predicted, int(t), sample).prev_sample
        return sample.cpu()

    def _standardise(self, target: Tensor) -> None:
        if self.own.standardise == "none":
            return
        self._mean = target.mean(0)
        if self.own.standardise == "global":
            self._scale = (target - self._mean).std().clamp(min=1e-6).expand(self.dim).clone()
        else:
            spread = target.std(0) if len(target) > 1 else torch.ones(self.dim)
            self._scale = spread.clamp(min=1e-6)

    def _guide(self, conditions: Tensor, seed: int) -> Tensor:
        """The condition of the ablations of table 4: the modality, zeros, or noise."""
        if self.own.guidance == "zero":
            return torch.zeros_like(conditions)
        if self.own.guidance == "random":
            generator = torch.Generator().manual_seed(seed)
            return torch.randn(conditions.shape, generator=generator)
        return conditions

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"mean": self._mean, "scale": self._scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._mean, self._scale = state["mean"], state["scale"]
