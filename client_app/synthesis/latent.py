"""Synthesizers that decode users from the latents of a MultiVAE."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from client_app.synthesis.base import Sample, Synthesizer, Watch, unwatched
from client_app.synthesis.loop import Keeper, Losses, Stage, check_silo, digest_of, run, seeded
from client_app.synthesis.loop import epoch as one_epoch
from client_app.synthesis.multivae import MultiVAE, annealed, losses
from client_app.synthesis.privacy import (
    COUNT_SHARE,
    Budget,
    PrivateGradients,
    Training,
    noise_multiplier,
    noised_share,
    spent,
)
from client_app.synthesis.rows import Rows
from client_app.synthesis.silo import Silo
from client_app.synthesis.stopping import parted, watched_recall
from client_app.synthesis.threshold import sparsity, thresholded
from common.errors import SnowdropError
from common.methods.autoencoder import AutoencoderSettings

OwnLatent = TypeVar("OwnLatent", bound=AutoencoderSettings)

OnePass = Callable[[int, int, int, Losses, torch.optim.Optimizer], float]
"""One pass over users, as `loop.epoch`."""

ENCODED = 1024
"""Users that are encoded at once."""


class LatentSynthesizer(Synthesizer[OwnLatent], Generic[OwnLatent]):
    """A MultiVAE, and something that makes latents for its decoder."""

    _network: MultiVAE | None = None

    def fit(
        self, silo: Silo, seed: int, watch: Watch = unwatched, folder: Path | None = None
    ) -> None:
        check_silo(silo)
        keeper = Keeper(folder, digest_of(self.name, self.own, silo, seed))
        rows = Rows.of(silo.likes, self.device)
        self._settle_privacy(len(rows))
        network = self._fit_autoencoder(silo, rows, keeper, seed, watch)
        self._fit_latents(network, rows, keeper, seed, watch)
        self._empty = self._measured_sparsity(silo, seed)
        self._network = network

    def _trainings(self, users: int) -> list[Training]:
        """All trainings that spend privacy."""
        return [Training.of(users, self.own.vae_batch, self.own.vae_epochs)]

    def _settle_privacy(self, users: int) -> None:
        """Choose the noise of all trainings, and say what they spend."""
        own = self.own
        self._budget, self.epsilon, self.delta = None, None, None
        if own.epsilon:
            delta = own.delta or 1 / max(users, 2) ** 2
            trainings, share = self._trainings(users), COUNT_SHARE * own.epsilon
            noise = noise_multiplier(own.epsilon - share, delta, trainings)
            self._budget = Budget(noise, own.clip, own.secure_noise)
            self.epsilon, self.delta = spent(noise, trainings, delta) + share, delta

    def _measured_sparsity(self, silo: Silo, seed: int) -> float:
        own = self.own
        matrix = silo.likes if own.fill == "likes" else silo.rated
        if not own.epsilon:
            return sparsity(matrix)
        with seeded(seed, "share", self.device):
            return 1 - noised_share(
                np.diff(matrix.indptr), self.items, own.most_likes,
                COUNT_SHARE * own.epsilon, own.secure_noise,
            )  # fmt: skip

    def _fit_latents(
        self, network: MultiVAE, rows: Rows, keeper: Keeper, seed: int, watch: Watch
    ) -> None:
        """Train what makes latents, with the trained MultiVAE."""

    @abstractmethod
    def _latents(self, users: int, watch: Watch) -> Tensor:
        """Latents of synthetic users, float32 (users, latent) on the device, from torch's
        randomness."""

    @torch.no_grad()
    def sample(self, users: int, seed: int, watch: Watch = unwatched) -> Sample:
        network = self._network
        if network is None:
            raise SnowdropError(f"{self.name} has not been fitted, so it has nothing to sample")
        with seeded(seed, "sample", self.device):
            latents = self._latents(users, watch)
        return thresholded(
            users, self.items, lambda part: network.decode(latents[part]), self._empty, watch
        )

    def _fit_autoencoder(
        self, silo: Silo, rows: Rows, keeper: Keeper, seed: int, watch: Watch
    ) -> MultiVAE:
        own = self.own
        with seeded(seed, "autoencoder", self.device):
            network = MultiVAE(self.items, own.vae_hidden, own.vae_latent, own.vae_dropout)
            network.to(self.device)
            trained, watched = self._parted(silo, rows)
        optimizer = torch.optim.Adam(network.parameters(), lr=own.vae_lr)

        def of_users(chosen: Tensor, updates: int) -> Tensor:
            weight = annealed(updates, own.kl_weight, own.kl_updates)
            return losses(network, trained.take(chosen), weight)

        one_pass = self._one_pass(network)

        def epoch(number: int) -> float:
            return one_pass(len(trained), own.vae_batch, number, of_users, optimizer)

        stage = Stage("autoencoder", network, optimizer, own.vae_epochs, epoch)
        if watched is not None:
            stage.score = lambda: watched_recall(
                lambda kept: network.decode(network.encode(kept)[0]), watched
            )
            stage.patience = own.vae_patience
        run(stage, keeper, seed, self.device, watch)
        return network

    def _one_pass(self, network: nn.Module) -> OnePass:
        """How a pass over the users is made: plainly, or with differential privacy."""
        return PrivateGradients(network, self._budget).epoch if self._budget else one_epoch

    def _parted(self, silo: Silo, rows: Rows) -> tuple[Rows, Rows | None]:
        """Users to train on, and those that stop the training, if there are any.

        With differential privacy nobody does: it would tell something of them.
        """
        if self.own.epsilon:
            return rows, None
        watched = silo.watched if self.own.stop_on == "watched" else None
        others = None if watched is None else Rows.of(watched, self.device)
        return parted(rows, others, self.own.held_out)


class PriorSynthesizer(LatentSynthesizer[AutoencoderSettings]):
    """Decodes N(0, I), the prior of the MultiVAE's latents."""

    def _latents(self, users: int, watch: Watch) -> Tensor:
        return torch.randn(users, self.own.vae_latent, device=self.device)


@torch.no_grad()
def encoded(network: MultiVAE, rows: Rows) -> Tensor:
    """Posterior means of users, float32 (users, latent)."""
    every = torch.arange(len(rows), device=rows.starts.device)
    return torch.cat([network.encode(rows.take(chosen))[0] for chosen in every.split(ENCODED)])
