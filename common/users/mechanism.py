"""What is done to users' changes before their sum leaves the node: bounded, and hidden by noise."""

import secrets
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from common.privacy import Cost
from common.settings import TrainingSettings


class Mechanism(ABC):
    """A privacy mechanism of a node, applied to the changes of all its users in a round."""

    bounds = True
    """Whether `kept` may be below 1, so that changes must be multiplied by it."""

    @abstractmethod
    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        """Share of each user's change that is kept, float32 (users,).

        Parameters
        ----------
        change : Tensor, float32 (users, rows, d)
        elsewhere : Tensor, float32 (users,), optional
            L1 norm of a user's change on rows that are not in ``change``.
        """

    @abstractmethod
    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        """What is added to the sum over ``users`` users, float32 of that shape."""

    @property
    def cost(self) -> Cost | None:
        """What a round costs a user who takes part in it; None where it has no ε."""
        return None


class Unchanged(Mechanism):
    """No protection: sums leave the node as they are."""

    bounds = False

    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        return torch.ones(len(change))

    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape)


class ClippedLaplace(Mechanism):
    """Local differential privacy with Laplace noise (MDiffFR, section 6.7).

    Each user's change is clipped to an L1 norm C, and every entry of it gets Laplace noise of scale
    δ: one round is ε-LDP with ε = 2 C / δ, for the change alone. Sums of losses and metrics, and
    numbers of users, leave the node as they are.

    Parameters
    ----------
    norm : float
        C; 0: changes are not clipped, and the noise then gives no ε.
    scale : float
        δ; 0: no noise.
    """

    def __init__(self, norm: float, scale: float) -> None:
        self._norm, self._scale = norm, scale
        self.bounds = norm > 0

    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        return clip_shares(change, self._norm, elsewhere)

    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        return laplace_sum(users, shape, self._scale)

    @property
    def cost(self) -> Cost | None:
        if not self._norm or not self._scale:
            return None
        return Cost(pure=2 * self._norm / self._scale)


def mechanism_of(settings: TrainingSettings) -> Mechanism:
    """The mechanism that the settings ask for."""
    if settings.clip_norm or settings.laplace_scale:
        return ClippedLaplace(settings.clip_norm, settings.laplace_scale)
    return Unchanged()


def without_mechanism(settings: TrainingSettings) -> TrainingSettings:
    """The same settings for a training whose changes never leave where they are made."""
    return settings.model_copy(update={"clip_norm": 0.0, "laplace_scale": 0.0})


def clip_shares(change: Tensor, norm: float, elsewhere: Tensor | float = 0.0) -> Tensor:
    """Share of each user's change that an L1 norm of at most ``norm`` leaves, float32 (users,).

    Parameters
    ----------
    change : Tensor, float32 (users, rows, d)
    norm : float
        0 leaves everything as it is.
    elsewhere : Tensor, float32 (users,), optional
        L1 norm of what is not in ``change``.
    """
    if not norm:
        return torch.ones(len(change))
    return norm / (change.abs().sum(dim=(1, 2)) + elsewhere).clamp(min=norm)


def laplace_sum(users: int, shape: tuple[int, ...], scale: float) -> Tensor:
    """The sum of ``users`` independent Laplace(0, ``scale``) noises on every entry, float32.

    Drawn as the difference of two Gamma(users, scale) variables, which has exactly that
    distribution. The randomness comes from the operating system.
    """
    if not scale or not users:
        return torch.zeros(shape)
    rng = np.random.default_rng(secrets.randbits(256))
    noise = rng.gamma(users, scale, shape)
    noise -= rng.gamma(users, scale, shape)
    return torch.from_numpy(noise).float()
