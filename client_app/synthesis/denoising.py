"""Synthesizers that turn noise as wide as a user's row into scores of all items."""

from abc import abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from client_app.synthesis.base import Sample, Synthesizer, Watch, unwatched
from client_app.synthesis.loop import Keeper, Stage, check_silo, digest_of, run, seeded
from client_app.synthesis.loop import epoch as one_epoch
from client_app.synthesis.rows import Rows
from client_app.synthesis.silo import Silo
from client_app.synthesis.stopping import parted, watched_recall
from client_app.synthesis.threshold import sparsity, thresholded
from common.errors import SnowdropError
from common.methods.denoising import DenoisingSettings

OwnDenoising = TypeVar("OwnDenoising", bound=DenoisingSettings)
Network = TypeVar("Network", bound=nn.Module)


class DenoisingSynthesizer(Synthesizer[OwnDenoising], Generic[OwnDenoising, Network]):
    """A network that is trained on noised users, and fed N(0, I) in their place.

    SDRM compares with recommenders of this kind so (arXiv 2311.03488, section 5.1.5).
    """

    _trained: Network | None = None

    def fit(
        self, silo: Silo, seed: int, watch: Watch = unwatched, folder: Path | None = None
    ) -> None:
        check_silo(silo)
        own = self.own
        keeper = Keeper(folder, digest_of(self.name, own, silo, seed))
        watched = silo.watched if own.stop_on == "watched" else None
        with seeded(seed, "network", self.device):
            network = self._network().to(self.device)
            users, stopping = parted(
                Rows.of(silo.likes, self.device),
                None if watched is None else Rows.of(watched, self.device),
                own.held_out,
            )
        optimizer = self._optimizer(network)

        def losses(chosen: Tensor, updates: int) -> Tensor:
            return self._losses(network, users.take(chosen))

        def epoch(number: int) -> float:
            return one_epoch(len(users), own.batch, number, losses, optimizer)

        stage = Stage("denoiser", network, optimizer, own.epochs, epoch)
        if stopping is not None:
            stage.score = lambda: watched_recall(
                lambda kept: self._recovered(network, kept.dense()), stopping
            )
            stage.patience = own.patience
        run(stage, keeper, seed, self.device, watch)
        self._empty = sparsity(silo.likes if own.fill == "likes" else silo.rated)
        self._trained = network

    @torch.no_grad()
    def sample(self, users: int, seed: int, watch: Watch = unwatched) -> Sample:
        network = self._trained
        if network is None:
            raise SnowdropError(f"{self.name} has not been fitted, so it has nothing to sample")

        def scores(part: slice) -> Tensor:
            with seeded(seed, f"users from {part.start}", self.device):
                noise = torch.randn(part.stop - part.start, self.items, device=self.device)
                return self._denoised(network, noise)

        return thresholded(users, self.items, scores, self._empty, watch)

    @abstractmethod
    def _network(self) -> Network:
        """What is trained, from torch's randomness."""

    @abstractmethod
    def _optimizer(self, network: Network) -> torch.optim.Optimizer: ...

    @abstractmethod
    def _losses(self, network: Network, users: Rows) -> Tensor:
        """Loss of each user, float32 (users,)."""

    @abstractmethod
    def _recovered(self, network: Network, users: Tensor) -> Tensor:
        """Scores of items for real users, both float32 (users, items)."""

    @abstractmethod
    def _denoised(self, network: Network, noise: Tensor) -> Tensor:
        """Scores of items that N(0, I) turns into, both float32 (users, items)."""
