"""What a training costs in privacy: ε of a round, and of all rounds so far.

Of one user, against whoever sees what the nodes send (noise of the nodes), the secure sums (noise
of the sum) or what the server makes of them (noise of the server). Gaussian noise on everybody
composes exactly in closed form (`common.privacy`). Where users are drawn, or with Laplace noise, ε
comes from privacy loss distributions (Koskela, Jälkö and Honkela, arXiv 1906.03049;
connect-the-dots, Doroshenko, Ghazi, Kamath, Kumar and Manurangsi, arXiv 2207.04380) of
`dp_accounting`.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from common.counting import counted
from common.privacy import NOTHING, Cost, cost_of
from common.secure.groups import certain, degree_of
from common.settings import NoiseBy, RunSettings, TrainingSettings

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    from server_app.training import Training

log = logging.getLogger("snowdrop")

ABSURD = 10.0
"""An ε from which on noise hides next to nothing: e¹⁰ is 22,000."""

_PROTECTED: Mapping[NoiseBy, str] = {
    "nodes": "what nodes send",
    "sum": "the secure sums",
    "server": "what the server makes of the sums",
}

_GRID, _FINEST = 1e-4, 1e-6
_STEPS = 50
"""Steps of the grid, at least, in the ε of a round, which is rounded up to one."""
_HOPELESS, _HOPELESS_ROUND = 500.0, 50.0
"""ε that are not worth a closer look: they are told without the help of drawing users."""


class Release(NamedTuple):
    """What one round gave away of each user who took part in it."""

    pure: float
    gaussian: float
    """Both as in `common.privacy.Cost`."""
    rate: float = 1.0
    """Chance of a user to be drawn for the round, each alone (Poisson sampling)."""
    hidden: bool = False
    """Whether it is hidden who was drawn: not where a node's answer tells how many of its users
    took part."""


def release(settings: TrainingSettings) -> Release | None:
    """What a round with these settings gives away; None where it has no ε."""
    cost = cost_of(settings)
    if cost is None:
        return None
    return Release(cost.pure, cost.gaussian, settings.fraction, settings.noise_by == "server")


def noise_in_sum(settings: RunSettings, users: int) -> float:
    """Standard deviation of the noise on every entry of the sum over ``users`` users; 0 without.

    Where nodes add it together, that is while all of them are there (`Node.answered`).
    """
    if settings.laplace_scale:
        return settings.laplace_scale * (2 * users) ** 0.5
    if settings.noise_by == "nodes":
        return settings.gaussian_scale * users**0.5
    if settings.noise_by == "server":
        return settings.gaussian_scale
    return settings.gaussian_scale * spare_noise(settings.nodes_per_round or settings.nodes)


def spare_noise(nodes: int) -> float:
    """Times that the noise of a secure sum has its least deviation while all nodes answer.

    Each node's part is so large that a sum over as few nodes as it can be about has enough.
    """
    return float((nodes / certain(degree_of(nodes) + 1)) ** 0.5)


def delta_of(settings: RunSettings, users: int) -> float:
    """δ at which a run tells ε: its setting, or 1 / users²."""
    return settings.privacy_delta or 1.0 / max(users, 2) ** 2


def epsilon(releases: Sequence[Release], delta: float) -> float:
    """ε of all these rounds together, at a δ.

    Parameters
    ----------
    releases : Sequence[Release]
    delta : float
        Above 0, below 1.

    Returns
    -------
    float
        An upper bound; the tight value up to the grid of the distributions.
    """
    bound = _bound(releases)
    simple = bound.epsilon(delta)
    if not bound.pure and all(one.rate == 1 for one in releases):
        return simple
    seen = _bound([one for one in releases if not one.hidden])
    worst = max(_bound([one]).epsilon(delta) for one in set(releases))
    if seen.epsilon(delta) > _HOPELESS or worst > _HOPELESS_ROUND:
        return simple
    finest = min((one.pure for one in releases if one.pure), default=1.0)
    grid = max(min(_GRID, finest / _STEPS), _FINEST)
    return min(simple, float(_composed(releases, grid).get_epsilon_for_delta(delta)))


def _bound(releases: Iterable[Release]) -> Cost:
    """What rounds cost a user who takes part in all of them."""
    return sum((Cost(one.pure, one.gaussian) for one in releases), NOTHING)


def _composed(releases: Sequence[Release], grid: float) -> "PrivacyLossDistribution":
    """The privacy loss distribution of all rounds together."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = pld.identity(grid)
    everybody = sum(one.gaussian for one in releases if one.rate == 1)
    if everybody:
        deviation = 1 / math.sqrt(everybody)
        total = pld.from_gaussian_mechanism(deviation, value_discretization_interval=grid)
    for one, times in Counter(_parts(releases)).items():
        total = total.compose(_single(one, grid).self_compose(times))
    return total


def _parts(releases: Sequence[Release]) -> list[Release]:
    """Rounds but for Gaussian noise on everybody, those with both noises as two."""
    parts = []
    for one in releases:
        if one.pure:
            parts.append(one._replace(gaussian=0.0))
        if one.gaussian and one.rate < 1:
            parts.append(one._replace(pure=0.0))
    return parts


def _single(one: Release, grid: float) -> "PrivacyLossDistribution":
    """The privacy loss distribution of one round.

    A user who is seen to be left out gives nothing away in that round, so that the distribution is
    a mixture; a user of whom nobody can say it is hidden further by whoever else was drawn
    (amplification by sampling).
    """
    from dp_accounting.pld import common as parameters
    from dp_accounting.pld import privacy_loss_distribution as pld

    if one.pure:  # the worst of all mechanisms with this ε, whatever their dimension
        told = parameters.DifferentialPrivacyParameters(one.pure, 0.0)
        drawn = pld.from_privacy_parameters(told, value_discretization_interval=grid)
    else:
        drawn = pld.from_gaussian_mechanism(
            1 / math.sqrt(one.gaussian),
            value_discretization_interval=grid,
            sampling_prob=one.rate if one.hidden else 1.0,
        )
        if one.hidden:
            return drawn
    return drawn if one.rate == 1 else drawn.compute_mixture(pld.identity(grid), one.rate)


def columns(training: "Training") -> dict[str, float]:
    """Columns of a row of ``rounds.csv``: ε of the last round, of all so far, and their δ."""
    if not (spent := releases_of(training)):
        return {}
    delta = delta_of(training.settings, training.users)
    return {
        "epsilon": epsilon(spent[-1:], delta),
        "epsilon_total": epsilon(spent, delta),
        "delta": delta,
    }


def of_training(training: "Training") -> dict[str, Any] | None:
    """The ``privacy`` part of ``summary.json``; None where no round has an ε."""
    found = columns(training)
    if not found:
        return None
    settings = training.settings
    return {
        "noise": settings.noise.removesuffix("_scale"),
        "noise_by": settings.noise_by,
        "rounds": len(training.spent),
        "epsilon_round": found["epsilon"],
        "epsilon": found["epsilon_total"],
        "delta": found["delta"],
        "metrics_without_noise": settings.tells_metrics,
    }


def releases_of(training: "Training") -> list[Release]:
    """What the rounds of a training have given away."""
    return [Release(*given) for given in training.spent]


def tell(training: "Training") -> None:
    """Log what the noise is worth, before rounds begin."""
    settings, spent = training.settings, releases_of(training)
    coming = release(settings)
    if coming is None:
        return
    delta = delta_of(settings, training.users)
    left = max(settings.rounds - training.round, 0)
    each, total = epsilon([coming], delta), epsilon([*spent, *[coming] * left], delta)
    log.info(
        "privacy of a user in %s: ε = %.3g in a round, %.3g over %s, at δ = %.3g; numbers "
        "of users are public, %s",
        _PROTECTED[settings.noise_by],
        each, total, counted(len(spent) + left, "round"), delta,
        "metrics carry no noise and are outside ε" if settings.release_metrics
        else "metrics stay on the nodes (release_metrics=true tells them, outside ε)",
    )  # fmt: skip
    if total >= ABSURD:
        log.warning(
            "ε = %.3g over all rounds protects nobody: `snowdrop privacy` tells the noise for an ε",
            total,
        )
