"""ε of Gaussian noise in closed form, against integrals and published values."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from common.privacy import NOTHING, Cost, gaussian_delta, gaussian_epsilon
from common.settings import TrainingSettings


def hockey_stick(mu: float, epsilon: float) -> float:
    """∫ max(0, p − e^ε q) with p = N(μ, 1) and q = N(0, 1), by quadrature."""
    begin = epsilon / mu + mu / 2  # where p > e^ε q begins
    area = lambda x: norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x)  # noqa: E731
    return quad(area, begin, begin + mu + 40, epsabs=1e-14, limit=200)[0]


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 0.1), (1.0, 0.0), (1.0, 2.0), (3.0, 5.0)])
def test_delta_is_the_integral(mu: float, epsilon: float) -> None:
    assert gaussian_delta(mu, epsilon) == pytest.approx(hockey_stick(mu, epsilon), rel=1e-7)


def test_sigma_of_balle_and_wang() -> None:
    """The classic bound asks for σ = √(2 ln(1.25/δ)) / ε; the exact one is smaller, and at ε → 0
    it is where Φ(1/2σ) − Φ(−1/2σ) = δ."""
    delta = 1e-5
    classic = math.sqrt(2 * math.log(1.25 / delta))
    assert gaussian_epsilon(1 / classic, delta) < 1.0
    sigma = 1 / (2 * norm.ppf((1 + delta) / 2))
    assert gaussian_epsilon(1 / sigma, delta * 1.000001) == 0.0
    assert gaussian_epsilon(1 / sigma, delta * 0.9) > 0.0


@given(st.floats(1e-3, 50), st.floats(1e-12, 0.1))
def test_epsilon_and_delta_are_inverse(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    if epsilon > 1e-6:
        assert gaussian_delta(mu, epsilon * (1 - 1e-9)) >= delta * (1 - 1e-4)


def test_far_out_it_stays_finite() -> None:
    for mu in (1e-9, 1e-3, 1e3, 1e6):
        assert 0 <= gaussian_epsilon(mu, 1e-6) < math.inf
    assert gaussian_epsilon(math.inf, 1e-6) == math.inf
    assert gaussian_epsilon(1e3, 1e-6) == pytest.approx(1e6 / 2 + 1e3 * norm.isf(1e-6), rel=1e-4)


def test_costs_add_up() -> None:
    assert NOTHING.epsilon(1e-6) == 0.0
    pure = Cost(pure=0.25) + Cost(pure=0.5)
    assert pure.epsilon(1e-9) == 0.75
    four = sum((Cost(gaussian=0.3**2) for _ in range(4)), NOTHING)
    assert four.epsilon(1e-6) == pytest.approx(gaussian_epsilon(0.6, 1e-6))
    assert (four + pure).epsilon(1e-6) == pytest.approx(gaussian_epsilon(0.6, 1e-6) + 0.75)


def test_more_noise_costs_less() -> None:
    costs = [gaussian_epsilon(mu, 1e-6) for mu in np.linspace(0.01, 5, 40)]
    assert all(one < other for one, other in pairwise(costs))


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
def test_the_bound_of_gaussian_noise_is_the_area_over_its_trade_off(mu: float) -> None:
    """f(α) = Φ(Φ⁻¹(1 − α) − μ), and the likelihood ratio has exactly that AUC."""
    area, _ = quad(lambda alpha: 1 - norm.cdf(norm.isf(alpha) - mu), 0, 1)
    assert Cost(gaussian=mu**2).auc_bound() == pytest.approx(area, abs=1e-6)
    rng = np.random.default_rng(0)
    absent, there = rng.normal(0, 1, 200_000), rng.normal(mu, 1, 200_000)
    assert Cost(gaussian=mu**2).auc_bound() == pytest.approx((there > absent).mean(), abs=0.005)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_the_bound_of_pure_epsilon_is_the_area_over_its_trade_off(epsilon: float) -> None:
    def over(alpha: float) -> float:
        return 1 - max(0, 1 - math.exp(epsilon) * alpha, math.exp(-epsilon) * (1 - alpha))

    corner = 1 / (1 + math.exp(epsilon))
    area, _ = quad(over, 0, 1, points=[corner])
    assert Cost(pure=epsilon).auc_bound() == pytest.approx(area, abs=1e-9)


def test_nothing_spent_is_guessing_and_two_kinds_are_refused() -> None:
    assert NOTHING.auc_bound() == 0.5
    with pytest.raises(ValueError, match="one kind of noise"):
        Cost(1.0, 1.0).auc_bound()


@pytest.mark.parametrize(("by", "factor"), [("nodes", 1), ("sum", 4), ("server", 4)])
def test_two_values_of_a_user_are_twice_as_far_apart_as_one_and_none(by: str, factor: int) -> None:
    settings = TrainingSettings(
        average="users", clip_norm=1.0, gaussian_scale=2.0, noise_by=by  # type: ignore[arg-type]
    )  # fmt: skip
    assert Cost(gaussian=0.3).of_substitution(settings) == Cost(gaussian=factor * 0.3)
