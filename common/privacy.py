"""What answers cost in privacy: pure ε, and Gaussian noise by its exact composition.

This much needs no library, so that a node can keep account of what it spends in each of its short
processes; the server's accountant (`server_app.accountant`) knows sampling as well.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.settings import TrainingSettings

_STEPS = 200
_FAR = 25.0
"""From here on the tail of the normal distribution is taken from its bound."""


@dataclass(frozen=True)
class Cost:
    """What a user has spent, for any two values of what is protected.

    Parameters
    ----------
    pure : float
        Sum of the ε of releases that are ε-private; they compose by adding (Dwork and Roth, "The
        Algorithmic Foundations of Differential Privacy", theorem 3.16).
    gaussian : float
        Σ (Δ / σ)² over releases with L2 sensitivity Δ and Gaussian noise of standard deviation σ:
        together they are as one release of μ = √Σ (Dong, Roth and Su, "Gaussian Differential
        Privacy", arXiv 1905.02383, corollary 3.3).
    """

    pure: float = 0.0
    gaussian: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.pure + other.pure, self.gaussian + other.gaussian)

    def epsilon(self, delta: float) -> float:
        """ε of all of it at a δ: that of the Gaussian part, and the pure part added."""
        return self.pure + gaussian_epsilon(math.sqrt(self.gaussian), delta)

    def auc_bound(self) -> float:
        """The largest AUC that a guess between any two values can have.

        Φ(μ / √2) of the Gaussian part, the area over the trade-off function of Gaussian privacy
        (arXiv 1905.02383, equation 6), or e^ε / (1 + e^ε) of the pure part, the area over that of
        pure privacy (proposition 2.4 there).

        Raises
        ------
        ValueError
            If there are both.
        """
        if self.pure and self.gaussian:
            raise ValueError("the bound is of one kind of noise")
        if self.pure:
            return 1 / (1 + math.exp(-self.pure))
        return (1 + math.erf(math.sqrt(self.gaussian) / 2)) / 2

    def of_substitution(self, settings: "TrainingSettings") -> "Cost":
        """The same where a user has other interactions, and is there in either case.

        Where a user that is there or not makes a difference of C, two values of one differ by 2 C.
        """
        factor = 1 if settings.noise_by == "nodes" else 4
        return Cost(self.pure, factor * self.gaussian)


NOTHING = Cost()


def cost_of(settings: "TrainingSettings") -> Cost | None:
    """What a round costs a user who takes part in it; None where it has no ε.

    Where each node adds the noise, two values of a user's change differ by at most 2 C: local
    privacy. Where it is in the sum alone, a user's change is there or is not, which differ by C.
    Whole numbers with discrete noise cost no more (`common.discrete`).
    """
    if settings.laplace_scale and settings.clip_norm:
        return Cost(pure=2 * settings.clip_norm / settings.laplace_scale)
    if settings.gaussian_scale and settings.clip_norm:
        apart = 2 if settings.noise_by == "nodes" else 1
        return Cost(gaussian=(apart * settings.clip_norm / settings.gaussian_scale) ** 2)
    return None


def gaussian_delta(mu: float, epsilon: float) -> float:
    """δ of the Gaussian mechanism at ε, exactly.

    Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) with μ = Δ/σ (Balle and Wang, "Improving the Gaussian
    Mechanism for Differential Privacy", arXiv 1805.06530, theorem 8).
    """
    if mu == 0:
        return 0.0
    first = math.exp(_log_tail(epsilon / mu - mu / 2))
    second = epsilon + _log_tail(epsilon / mu + mu / 2)
    return max(0.0, first - math.exp(second))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least ε ≥ 0 at which the Gaussian mechanism with μ = Δ/σ has at most this δ.

    Parameters
    ----------
    mu : float
    delta : float
        Above 0, below 1.
    """
    if not math.isfinite(mu):
        return math.inf
    low, high = 0.0, 1.0
    if gaussian_delta(mu, low) <= delta:
        return 0.0
    while gaussian_delta(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if gaussian_delta(mu, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _log_tail(x: float) -> float:
    """log P(N(0, 1) > x); where the error function ends, a lower bound of it (Gordon 1941)."""
    if x < _FAR:
        return math.log(math.erfc(x / math.sqrt(2)) / 2)
    return -x * x / 2 - math.log(math.sqrt(2 * math.pi) * (x + 1 / x))
