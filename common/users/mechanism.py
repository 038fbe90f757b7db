"""What is done to users' changes before their sum leaves the node: bounded, and hidden by noise."""

import secrets
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from common.discrete import EXPONENT, discrete_gaussian
from common.settings import TrainingSettings


class Mechanism(ABC):
    """A privacy mechanism of a node, applied to the changes of all its users in a round."""

    bounds = True
    """Whether `kept` may be below 1, so that changes must be multiplied by it."""

    order = 1
    """p of the norm that bounds a change: (Σ |x|^p)^(1/p)."""

    @abstractmethod
    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        """Share of each user's change that is kept, float32 (users,).

        Parameters
        ----------
        change : Tensor, float32 (users, rows, d)
        elsewhere : Tensor, float32 (users,), optional
            Σ |x|^p over a user's change that is not in ``change``, p = `order`.
        """

    @abstractmethod
    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        """What is added to the sum over ``users`` users, float32 of that shape."""


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
    δ: one round is ε-LDP with ε = 2 C / δ.

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


class ClippedGaussian(Mechanism):
    """Differential privacy of a user with Gaussian noise.

    Each user's change is clipped to an L2 norm C, and every entry of it gets noise N(0, σ²)
    (McMahan, Ramage, Talwar and Zhang, "Learning Differentially Private Recurrent Language Models",
    arXiv 1710.06963, whose server adds the noise; here each user has noise of its own).

    Parameters
    ----------
    norm : float
        C.
    scale : float
        σ; 0: the change is clipped alone, since the server adds the noise.
    """

    order = 2

    def __init__(self, norm: float, scale: float) -> None:
        self._norm, self._scale = norm, scale

    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        return clip_shares(change, self._norm, elsewhere, self.order)

    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        return gaussian_sum(users, shape, self._scale)


def mechanism_of(settings: TrainingSettings, fixed: float = 0.0) -> Mechanism:
    """The mechanism that the settings ask a node for.

    Parameters
    ----------
    settings : TrainingSettings
    fixed : float
        A number that every user sends in one place or another, and that is not clipped: all else
        of a user is bounded by what it leaves of C, C − ``fixed`` of an L1 norm and
        (C² − ``fixed``²)^(1/2) of an L2 norm, so that all of it together is bounded by C.
    """
    if settings.gaussian_scale:
        own = settings.gaussian_scale if settings.noise_by == "nodes" else 0.0
        return ClippedGaussian((settings.clip_norm**2 - fixed**2) ** 0.5, own)
    if settings.clip_norm or settings.laplace_scale:
        return ClippedLaplace(settings.clip_norm - fixed, settings.laplace_scale)
    return Unchanged()


def whole_noise(settings: TrainingSettings, users: int, shape: tuple[int, ...]) -> np.ndarray:
    """What a node adds to the sum over its users in whole steps, int64 of that shape.

    Discrete Gaussian noise of variance ``users`` · σ² where nodes add the noise by themselves. What
    they add under masks together, `common.secure.fixed_point` adds.
    """
    own = settings.gaussian_scale if settings.noise_by == "nodes" else 0.0
    return discrete_gaussian(shape, own * users**0.5 * 2.0**EXPONENT)


def without_mechanism(settings: TrainingSettings) -> TrainingSettings:
    """The same settings for a training whose changes never leave where they are made."""
    off = {"clip_norm": 0.0, "laplace_scale": 0.0, "gaussian_scale": 0.0, "noise_by": "nodes"}
    return settings.model_copy(update=off)


def powers(numbers: Tensor, order: int) -> Tensor:
    """|x|^p of each number, p 1 or 2."""
    return numbers.abs() if order == 1 else numbers.square()


def clip_shares(
    change: Tensor, norm: float, elsewhere: Tensor | float = 0.0, order: int = 1
) -> Tensor:
    """Share of each user's change that a norm of at most ``norm`` leaves, float32 (users,).

    Parameters
    ----------
    change : Tensor, float32 (users, rows, d)
    norm : float
        0 leaves everything as it is.
    elsewhere : Tensor, float32 (users,), optional
        Σ |x|^p of what is not in ``change``.
    order : int
        p of the norm: 1 or 2.
    """
    if not norm:
        return torch.ones(len(change))
    length = powers(change, order).sum(dim=(1, 2)) + elsewhere
    if order == 2:
        length = length.sqrt()
    return norm / length.clamp(min=norm)


def laplace_sum(users: int, shape: tuple[int, ...], scale: float) -> Tensor:
    """The sum of ``users`` independent Laplace(0, ``scale``) noises on every entry, float32.

    Drawn as the difference of two Gamma(users, scale) variables, which has exactly that
    distribution. The seed comes from the operating system.
    """
    if not scale or not users:
        return torch.zeros(shape)
    rng = np.random.default_rng(secrets.randbits(256))
    noise = rng.gamma(users, scale, shape)
    noise -= rng.gamma(users, scale, shape)
    return torch.from_numpy(noise).float()


def gaussian_sum(users: int, shape: tuple[int, ...], scale: float) -> Tensor:
    """The sum of ``users`` independent N(0, ``scale``²) noises on every entry, float32.

    Drawn as N(0, users · scale²). The seed comes from the operating system.
    """
    if not scale or not users:
        return torch.zeros(shape)
    rng = np.random.default_rng(secrets.randbits(256))
    return torch.from_numpy(rng.normal(0.0, scale * users**0.5, shape)).float()
