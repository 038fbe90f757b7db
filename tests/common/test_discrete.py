"""Discrete Gaussian noise: its distribution, and that its ε is that of Gaussian noise."""

import math

import numpy as np
import pytest
from scipy.stats import chisquare, kstest, norm

from common.discrete import LEAST_NOISE, STEP, discrete_gaussian
from common.privacy import gaussian_delta, gaussian_epsilon

RARE = 1e-9
"""Chance of a test here to fail by bad luck: randomness is the operating system's."""


def chances(deviation: float, numbers: np.ndarray) -> np.ndarray:
    """Of whole numbers, ∝ exp(−z² / 2 s²); the rest of the line is too far to count."""
    far = np.arange(-math.ceil(40 * deviation), math.ceil(40 * deviation) + 1)
    return np.exp(-(numbers**2) / 2 / deviation**2) / np.exp(-(far**2) / 2 / deviation**2).sum()


@pytest.mark.parametrize("deviation", [0.7, 2.5])
def test_small_noise_is_the_closed_form_number_by_number(deviation: float) -> None:
    drawn = discrete_gaussian((20_000,), deviation)
    most = math.ceil(3 * deviation)
    numbers = np.arange(-most, most + 1)
    expected = chances(deviation, numbers) * len(drawn)
    seen = np.array([np.count_nonzero(drawn == z) for z in numbers])
    rest = len(drawn) - np.array([seen.sum(), expected.sum()])
    assert chisquare([*seen, rest[0]], [*expected, rest[1]]).pvalue > RARE


@pytest.mark.parametrize("scale", [LEAST_NOISE, 4.0])
def test_fine_noise_is_gaussian_to_the_eye(scale: float) -> None:
    drawn = discrete_gaussian((100, 200), scale / STEP)
    assert drawn.dtype == np.int64
    assert kstest(drawn.ravel() * STEP, norm(scale=scale).cdf).pvalue > RARE
    assert len(np.unique(drawn)) > 19_500  # each is drawn anew, across the parts as well
    assert not discrete_gaussian((3,), 0.0).any()


def exact_delta(deviation: float, apart: int, epsilon: float) -> float:
    """δ of one whole number with discrete noise, by its definition."""
    z = np.arange(-math.ceil(40 * deviation), math.ceil(40 * deviation) + 1)
    here, there = chances(deviation, z), chances(deviation, z - apart)
    return float(np.maximum(0, here - math.exp(epsilon) * there).sum())


@pytest.mark.parametrize(("deviation", "apart"), [(64.0, 16), (200.0, 300), (1000.0, 1000)])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_delta_of_discrete_noise_is_that_of_gaussian_noise(
    deviation: float, apart: int, epsilon: float
) -> None:
    """Within what the module's docstring allows for, where steps are far coarser than ours."""
    more = (1 + 100) / deviation**2
    gaussian = gaussian_delta(apart / deviation, max(epsilon - more, 0.0))
    assert exact_delta(deviation, apart, epsilon) <= math.exp(more) * gaussian + 1e-12
    assert exact_delta(deviation, apart, epsilon) == pytest.approx(
        gaussian_delta(apart / deviation, epsilon), rel=2 / deviation
    )


def tau(deviation: float, parts: int) -> float:
    """Of arXiv 2102.06387, theorem 5, for parts of a standard deviation each."""
    j = np.arange(1, parts)
    return 10 * float(np.exp(-2 * np.pi**2 * deviation**2 * j / (j + 1)).sum())


def test_the_sum_of_parts_is_one_discrete_gaussian() -> None:
    for parts in (3, 22, 10_000):
        assert tau(LEAST_NOISE / STEP / parts**0.5, parts) == 0.0
    total = discrete_gaussian((5, 20_000), 3.0 / STEP / 5**0.5).sum(0)
    assert kstest(total * STEP, norm(scale=3.0).cdf).pvalue > RARE


def concentrated_epsilon(rho: float, delta: float) -> float:
    """ε of ρ-concentrated privacy (Canonne and others, arXiv 2004.00010, proposition 12)."""
    alpha = 1 + np.geomspace(1e-3, 1e4, 100_000)
    return float(
        np.min(alpha * rho + np.log(1 / (alpha * delta)) / (alpha - 1) + np.log1p(-1 / alpha))
    )


@pytest.mark.parametrize("noise", [1.0, 4.0, 16.0])
def test_epsilon_is_below_the_published_bound_and_not_by_much(noise: float) -> None:
    """The published bound has ½ ε² = ½ (Δ² / σ² + τ d), and τ is 0 here."""
    published = concentrated_epsilon(1 / (2 * noise**2), 1e-6)
    assert 0.8 * published < gaussian_epsilon(1 / noise, 1e-6) < published
