"""What is done to users' changes before their sum leaves the node: bounded, and hidden by noise."""

import math
import secrets
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from common.discrete import STEP, discrete_gaussian
from common.errors import OverflowedError
from common.settings import TrainingSettings

_SLIGHTLY_LESS = 1 - 2.0**-26
"""More than what errors of float64 can add to a norm of 2²⁷ numbers, in whatever order they are
summed."""

_LEFT_STEP, _RIGHT_STEP = 2.0**-18, 2.0**-12
"""Steps of the factors of a product, which is then in whole steps of 2⁻³⁰."""

_EXACT = 2.0**53
"""Whole numbers up to this one are exact in float64."""


class Mechanism(ABC):
    """A privacy mechanism of a node, applied to the changes of all its users in a round."""

    bounds = True
    """Whether `kept` may be below 1, so that changes must be multiplied by it."""

    dtype = torch.float32
    """Of sums; int64 where they count whole steps of 2⁻³⁰."""

    order = 1
    """p of the norm that bounds a change: (Σ |x|^p)^(1/p)."""

    @abstractmethod
    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        """Share of each user's change that is kept, float (users,).

        Parameters
        ----------
        change : Tensor, float32 (users, rows, d)
        elsewhere : Tensor, float32 (users,), optional
            Σ |x|^p over a user's change that is not in ``change``, p = `order`.
        """

    def parts(self, change: Tensor, kept: Tensor) -> Tensor:
        """What users add to the sums, of `dtype` and the shape of ``change``.

        Parameters
        ----------
        change : Tensor, float (users, …)
        kept : Tensor, float (users,)
            From `kept`.
        """
        if not self.bounds:
            return change
        return change * kept.reshape(-1, *[1] * (change.dim() - 1))

    def products(self, left: Tensor, right: Tensor, kept: Tensor) -> Tensor:
        """What users add to the sums whose changes are of rank 1, `dtype` (n, d).

        Parameters
        ----------
        left, right : Tensor, float32 (users, n), (users, d)
            A user's change is the product of its row of ``left`` and its row of ``right``.
        kept : Tensor, float (users,)
            From `kept`.
        """
        return self.parts(left, kept.to(left.dtype)).T @ right

    @abstractmethod
    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        """What is added to the sum over ``users`` users, of `dtype` and that shape."""


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
    b (the paper's δ): one round is ε-LDP with ε = 2 C / b.

    Parameters
    ----------
    norm : float
        C; infinite: changes are not clipped, and the noise then gives no ε.
    scale : float
        b; 0: no noise.
    """

    def __init__(self, norm: float, scale: float) -> None:
        self._norm, self._scale = norm, scale
        self.bounds = norm < math.inf

    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        return clip_shares(change, self._norm, elsewhere)

    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        return laplace_sum(users, shape, self._scale)


class ClippedGaussian(Mechanism):
    """Differential privacy of a user with Gaussian noise.

    Each user's change is clipped to an L2 norm C, and every entry of it gets noise of variance σ²
    (McMahan, Ramage, Talwar and Zhang, "Learning Differentially Private Recurrent Language Models",
    arXiv 1710.06963, whose server adds the noise; here each user has noise of its own).

    Sums count whole steps of 2⁻³⁰, and the noise is discrete (`common.discrete`). The norm is
    computed in float64, and each user's numbers are rounded towards zero by themselves, which makes
    none of them larger. So the bound holds for the very numbers that are added up, and these add up
    exactly.

    Parameters
    ----------
    norm : float
        C.
    scale : float
        σ; 0: the change is clipped alone, since the noise is added elsewhere.
    """

    order = 2
    dtype = torch.int64

    def __init__(self, norm: float, scale: float) -> None:
        self._norm, self._scale = norm, scale

    def kept(self, change: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        return clip_shares(change, self._norm, elsewhere, self.order)

    def parts(self, change: Tensor, kept: Tensor) -> Tensor:
        return whole_steps(super().parts(change.double(), kept))

    def products(self, left: Tensor, right: Tensor, kept: Tensor) -> Tensor:
        """The sum of whole products: either factor is a whole number of larger steps by itself.

        Sums of float64 are exact up to 2⁵³, so that so many users are added up at once as cannot
        reach that.
        """
        total = torch.zeros(left.shape[1], right.shape[1], dtype=self.dtype)
        for some in torch.arange(len(left)).split(max(1, int(_EXACT * STEP / self._norm))):
            bounded = left[some].double() * kept[some].double()[:, None]
            by_left = whole_steps(bounded, _LEFT_STEP).double()
            by_right = whole_steps(right[some].double(), _RIGHT_STEP).double()
            total += (by_left.T @ by_right).long()
        return total

    def noise(self, users: int, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(discrete_gaussian(shape, self._scale * users**0.5 / STEP))


def whole_steps(numbers: Tensor, step: float = STEP) -> Tensor:
    """Numbers in whole steps, of 2⁻³⁰ by default, rounded towards zero, int64.

    Each is made smaller by a 2⁻²⁶th before, so that a norm that was computed as C is at most C.

    Parameters
    ----------
    numbers : Tensor, float64
    step : float

    Raises
    ------
    OverflowedError
        If one is NaN or Inf.
    """
    if not torch.isfinite(numbers).all():
        raise OverflowedError("a table holds NaN or Inf: lower item_lr or head_lr")
    return (numbers * (_SLIGHTLY_LESS / step)).trunc().long()


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
        bound = settings.clip_norm - fixed if settings.clip_norm else math.inf
        return ClippedLaplace(bound, settings.laplace_scale)
    return Unchanged()


def whole_noise(settings: TrainingSettings, users: int, shape: tuple[int, ...]) -> np.ndarray:
    """What a node adds to the sum over its users in whole steps, int64 of that shape.

    Discrete Gaussian noise of variance ``users`` · σ² where nodes add the noise by themselves. What
    they add under masks together, `common.secure.fixed_point` adds.
    """
    own = settings.gaussian_scale if settings.noise_by == "nodes" else 0.0
    return discrete_gaussian(shape, own * users**0.5 / STEP)


def without_mechanism(settings: TrainingSettings) -> TrainingSettings:
    """The same settings for a training whose changes never leave where they are made."""
    off = {"clip_norm": 0.0, "laplace_scale": 0.0, "gaussian_scale": 0.0, "noise_by": "nodes"}
    return settings.model_copy(update=off)


def powers(numbers: Tensor, order: int) -> Tensor:
    """|x|^p of each number, p 1 or 2; squares are float64, and exact where numbers are float32."""
    return numbers.abs() if order == 1 else numbers.double().square()


def clip_shares(
    change: Tensor, norm: float, elsewhere: Tensor | float = 0.0, order: int = 1
) -> Tensor:
    """Share of each user's change that a norm of at most ``norm`` leaves, float (users,).

    Parameters
    ----------
    change : Tensor, float32 (users, rows, d)
    norm : float
        Infinite leaves everything as it is.
    elsewhere : Tensor, float32 (users,), optional
        Σ |x|^p of what is not in ``change``.
    order : int
        p of the norm: 1 or 2.
    """
    if norm == math.inf:
        return torch.ones(len(change))
    length = powers(change, order).sum(dim=(1, 2)) + elsewhere
    if order == 2:
        length = length.sqrt()
    return torch.where(length > norm, norm / length, 1.0)


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
