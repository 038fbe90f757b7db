"""SDRM: score-based diffusion in the latent space of a MultiVAE makes synthetic users.

Multi-Resolution Diffusion for Privacy-Sensitive Recommender Systems (arXiv 2311.03488): equation 1,
algorithms 1 and 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from client_app.synthesis.base import Watch
from client_app.synthesis.diffusion import Denoiser, Schedule, denoise
from client_app.synthesis.latent import LatentSynthesizer, encoded
from client_app.synthesis.loop import Keeper, Stage, run, seeded
from client_app.synthesis.multivae import MultiVAE
from client_app.synthesis.privacy import Training
from client_app.synthesis.rows import Rows
from common.methods.sdrm import SDRMSettings, StandardKind

PERTURBATION = 0.1
"""Scale of the noise with which the score is compared to itself: σ_v of equation 1."""

SMALLEST = 1e-2
"""Smallest standard deviation of latents along an axis, as a share of the largest one."""

CHUNK = 8192
"""Synthetic users that are denoised at once."""


class SDRM(LatentSynthesizer[SDRMSettings]):
    """Denoises N(0, I) to latents of a MultiVAE, and decodes them."""

    def _fit_latents(
        self, network: MultiVAE, rows: Rows, keeper: Keeper, seed: int, watch: Watch
    ) -> None:
        own = self.own
        latents = encoded(network, rows)
        self._standard = Standard.of(latents, "none" if own.epsilon else own.standardise)
        latents = self._standard.taken(latents)
        self._schedule = Schedule.of(own.schedule, own.steps, self.device)
        with seeded(seed, "denoiser", self.device):
            self._denoiser = Denoiser(
                own.vae_latent, own.steps, own.width or own.vae_latent, own.layers,
                own.shared_layers, own.dropout, own.bounded,
            ).to(self.device)  # fmt: skip
        optimizer = torch.optim.Adam(
            self._denoiser.parameters(), lr=own.lr, weight_decay=own.weight_decay
        )

        one_pass = self._one_pass(self._denoiser)

        def epoch(number: int) -> float:
            for group in optimizer.param_groups:
                group["lr"] = own.lr * (1 - number / own.epochs)
            return one_pass(
                len(latents), own.batch, number, lambda at, _: self._losses(latents[at]), optimizer
            )

        stage = Stage("diffusion", self._denoiser, optimizer, own.epochs, epoch)
        run(stage, keeper, seed, self.device, watch)
        self._denoiser.dropping = own.sampling_dropout

    def _trainings(self, users: int) -> list[Training]:
        own = self.own
        return [*super()._trainings(users), Training.of(users, own.batch, own.epochs)]

    def _losses(self, latents: Tensor) -> Tensor:
        own = self.own
        steps = torch.randint(1, own.steps + 1, (len(latents),), device=self.device)
        noise = own.noise_scale * torch.randn_like(latents)
        noised = self._schedule.noised(latents, noise, steps, own.noising == "published")
        if own.objective == "code":
            return published_loss(self._denoiser, latents, noised, noise, steps)
        if own.objective == "equation-1":
            return equation_1(self._denoiser, noised, steps)
        velocity = own.objective == "velocity"
        wanted = self._schedule.velocity_of(latents, noise, steps) if velocity else noise
        return (self._denoiser(noised, steps) - wanted).square().mean(1)

    def _predicted(self, latents: Tensor, steps: Tensor) -> Tensor:
        """Noise in latents at steps, both float32 (rows, latent)."""
        found: Tensor = self._denoiser(latents, steps)
        if self.own.objective == "velocity":
            return self._schedule.noise_of(found, latents, steps)
        return found

    def _latents(self, users: int, watch: Watch) -> Tensor:
        own = self.own
        parts = []
        for at in range(0, users, CHUNK):
            watch("denoise", at, users)
            count = min(CHUNK, users - at)
            start = torch.randn(count, own.vae_latent, device=self.device)
            steps = torch.full((count,), own.steps, device=self.device)
            if own.sampling == "multi":
                steps = torch.randint(1, own.steps, (count,), device=self.device)
            made = denoise(self._predicted, self._schedule, start, steps, own.noise_scale)
            parts.append(self._standard.given(made, own.restored))
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Standard:
    """How latents are standardised, and given back some of what that took from them.

    Parameters
    ----------
    mean : Tensor, float32 (latent,)
    axes : Tensor, float32 (latent, latent)
        Orthonormal directions, one per column.
    scales : Tensor, float32 (latent,)
        Standard deviations along them.
    """

    mean: Tensor
    axes: Tensor
    scales: Tensor

    @classmethod
    def of(cls, latents: Tensor, way: StandardKind) -> "Standard":
        """The standard of latents, float32 (users, latent); see the setting ``standardise``."""
        mean, axes = latents.mean(0), torch.eye(latents.shape[1], device=latents.device)
        if way == "none":
            return cls(torch.zeros_like(mean), axes, torch.ones_like(mean))
        scales = latents.std(0, correction=0)
        if way == "global":
            scales = scales.square().mean().sqrt().expand_as(scales)
        if way == "whole":
            covariance = torch.cov(latents.T.double(), correction=0).reshape(axes.shape)
            variances, directions = torch.linalg.eigh(covariance)
            scales, axes = variances.clamp(min=0).sqrt().float(), directions.float()
        least = max(SMALLEST * float(scales.max()), 1e-12)
        return cls(mean, axes, scales.clamp(min=least))

    def taken(self, latents: Tensor) -> Tensor:
        """Standardised latents, float32 (users, latent)."""
        return (latents - self.mean) @ (self.axes / self.scales) @ self.axes.T

    def given(self, latents: Tensor, share: float) -> Tensor:
        """Standardised latents with a share of the mean, and the scales to the power of it."""
        return latents @ (self.axes * self.scales**share) @ self.axes.T + share * self.mean


def published_loss(
    denoiser: Denoiser, latents: Tensor, noised: Tensor, noise: Tensor, steps: Tensor
) -> Tensor:
    """The loss of the published code, a scalar.

    With e = f(z_t, t), s = f(z, t) of the latent without noise, s' = f(z + .1 n, t) and Δ = e − z:
    ½ [MSE((s' − s) / .1², Δ) + MSE(Δ, s)] / (1e-8 + Var(Δ)); gradients flow through all of it.
    """
    score = denoiser(latents, steps)
    moved = denoiser(latents + PERTURBATION * noise, steps)
    change = denoiser(noised, steps) - latents
    first = ((moved - score) / PERTURBATION**2 - change).square().mean()
    second = (change - score).square().mean()
    return (first + second) / 2 / (1e-8 + change.var())


def equation_1(denoiser: Denoiser, noised: Tensor, steps: Tensor) -> Tensor:
    """Equation 1 of each user, float32 (users,), with one network as s and ε.

    {‖(s(z_t + v) − s(z_t)) − Δ‖² + ‖s(z_t) − Δ‖²} / ‖Δ‖² with Δ = ε(z_t) − z_t, v ~ N(0, .1² I).
    """
    score = denoiser(noised, steps)
    moved = denoiser(noised + PERTURBATION * torch.randn_like(noised), steps)
    change = score - noised
    first = (moved - score - change).square().sum(1)
    second = (score - change).square().sum(1)
    return (first + second) / (1e-8 + change.square().sum(1))
