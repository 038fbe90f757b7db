import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest, laplace, norm

from common.discrete import STEP
from common.errors import OverflowedError
from common.privacy import Cost, cost_of
from common.settings import TrainingSettings
from common.users.mechanism import (
    ClippedGaussian,
    Unchanged,
    clip_shares,
    laplace_sum,
    mechanism_of,
    powers,
    whole_steps,
    without_mechanism,
)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    norm=st.floats(1e-3, 1e3),
    size=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_clip_bounds_each_user_and_keeps_directions(seed: int, norm: float, size: float) -> None:
    change = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed)) * size
    change[0] = 0
    clipped = change * clip_shares(change, norm)[:, None, None]
    before, after = change.abs().sum((1, 2)), clipped.abs().sum((1, 2))
    assert (after <= norm * (1 + 1e-5)).all()
    inside = before <= norm
    torch.testing.assert_close(clipped[inside], change[inside])
    torch.testing.assert_close(after, before.clamp(max=norm))
    torch.testing.assert_close(
        clipped * before[:, None, None], change * after[:, None, None], rtol=1e-4, atol=1e-6 * size
    )


def test_what_is_changed_elsewhere_counts() -> None:
    shares = clip_shares(torch.ones(2, 3, 1), 4.0, torch.tensor([0.0, 5.0]))
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.5]))


def test_no_norm_is_no_clipping() -> None:
    change = torch.full((2, 3, 4), 1e6)
    assert torch.equal(clip_shares(change, math.inf), torch.ones(2))


@pytest.mark.parametrize(("users", "scale"), [(0, 1.0), (3, 0.0)])
def test_no_users_or_no_scale_is_no_noise(users: int, scale: float) -> None:
    noise = laplace_sum(users, (3, 4), scale)
    assert noise.shape == (3, 4)
    assert noise.dtype == torch.float32
    assert not noise.any()


# The noise comes from the operating system, so each bound below is one that a right
# implementation crosses about once in ten million runs.


def test_one_users_noise_is_laplace() -> None:
    noise = laplace_sum(1, (100, 200), 0.7).flatten().numpy()
    assert kstest(noise, laplace(scale=0.7).cdf).pvalue > 1e-7


@pytest.mark.parametrize("users", [2, 5, 40])
def test_the_sum_is_that_of_single_noises(users: int) -> None:
    samples, scale = 20_000, 0.3
    noise = laplace_sum(users, (samples,), scale).numpy()
    singles = np.random.default_rng(0).laplace(0, scale, (users, samples)).sum(0)
    assert ks_2samp(noise, singles).pvalue > 1e-7
    variance = 2 * users * scale**2
    assert noise.mean() == pytest.approx(0, abs=6 * (variance / samples) ** 0.5)
    assert noise.var() == pytest.approx(variance, rel=0.2)


def test_noise_is_never_the_same() -> None:
    assert not torch.equal(laplace_sum(3, (50,), 1.0), laplace_sum(3, (50,), 1.0))


def test_the_noise_of_a_crowd_is_the_sum_of_single_gaussian_ones() -> None:
    users, samples, scale = 6, 20_000, 1.5
    noise = ClippedGaussian(1.0, scale).noise(users, (samples, 1))
    assert noise.shape == (samples, 1)
    assert noise.dtype == torch.int64
    numbers = noise.numpy().ravel() * STEP
    assert kstest(numbers, norm(scale=scale * users**0.5).cdf).pvalue > 1e-7
    singles = np.random.default_rng(0).normal(0, scale, (users, samples)).sum(0)
    assert ks_2samp(numbers, singles).pvalue > 1e-7


def test_gaussian_noise_is_never_the_same_and_none_without_users() -> None:
    one, none = ClippedGaussian(1.0, 1.0), ClippedGaussian(1.0, 0.0)
    assert not torch.equal(one.noise(3, (50,)), one.noise(3, (50,)))
    assert not one.noise(0, (4,)).any()
    assert not none.noise(5, (4,)).any()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bound=st.floats(1e-3, 1e3),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
    apart=st.booleans(),
)
def test_whole_steps_of_a_user_have_a_norm_of_at_most_the_bound(
    seed: int, bound: float, size: float, apart: bool
) -> None:
    """Exactly, for the whole numbers that are added up, also where they stand in two tables."""
    change = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed)) * size
    rest = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed + 1)) * size * apart
    mechanism = ClippedGaussian(bound, 1.0)
    kept = mechanism.kept(change, powers(rest, 2).sum(1))
    whole = [mechanism.parts(one, kept).flatten(1) for one in (change, rest)]
    for user in range(3):
        squares = sum(int(k) ** 2 for part in whole for k in part[user])
        assert squares <= Fraction(bound) ** 2 * 2**60
        exact = float(change[user].double().square().sum() + rest[user].double().square().sum())
        left = min(1.0, bound / exact**0.5)
        for part, numbers in zip(whole, (change, rest), strict=True):
            told = part[user].double() * STEP
            assert (told.abs() <= numbers[user].double().flatten().abs()).all()
            expected = numbers[user].double().flatten() * left
            torch.testing.assert_close(told, expected, rtol=2**-25, atol=STEP)


def test_steps_are_counted_towards_zero_and_slightly_fewer() -> None:
    """A 2⁻²⁶th of 2³⁰ steps is 16 of them."""
    numbers = torch.tensor([1.0, -1.0, 1.9 * STEP, -1.9 * STEP], dtype=torch.float64)
    assert whole_steps(numbers).tolist() == [2**30 - 16, 16 - 2**30, 1, -1]


def test_numbers_that_are_none_are_refused() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(OverflowedError, match="a table holds NaN or Inf"):
            whole_steps(torch.tensor([1.0, bad], dtype=torch.float64))


def test_an_l2_bound_counts_everything() -> None:
    change = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    rest = torch.tensor([0.0, 1.0, 4.0, 9.0, 0.0])  # squares elsewhere
    kept = clip_shares(change, 2.0, rest, order=2)
    for user in range(5):
        norm_of = float((change[user].square().sum() + rest[user]).sqrt())
        assert float(kept[user]) == pytest.approx(min(1.0, 2.0 / norm_of), rel=1e-6)


@pytest.mark.parametrize(("noise", "left"), [("laplace_scale", 2.0), ("gaussian_scale", 4.0)])
def test_a_number_that_is_not_clipped_takes_its_part_of_the_bound(noise: str, left: float) -> None:
    """Of C = 5 and a number of 3, an L1 norm leaves 2 and an L2 norm 4."""
    own = TrainingSettings(average="users", clip_norm=5.0, **{noise: 1.0})  # type: ignore[arg-type]
    kept = mechanism_of(own, 3.0).kept(torch.full((1, 1, 1), 8.0))
    assert float(kept[0]) == pytest.approx(left / 8)


@pytest.mark.parametrize(
    ("changed", "cost"),
    [
        ({}, None),
        ({"clip_norm": 1.0}, None),
        ({"clip_norm": 0.5, "laplace_scale": 0.25}, Cost(pure=4.0)),
        ({"clip_norm": 0.5, "gaussian_scale": 2.0}, Cost(gaussian=0.25)),
        ({"clip_norm": 0.5, "gaussian_scale": 2.0, "noise_by": "server"}, Cost(gaussian=0.0625)),
    ],
)
def test_what_a_round_costs(changed: dict[str, Any], cost: Cost | None) -> None:
    settings = TrainingSettings(average="users", **changed)
    assert cost_of(settings) == cost
    assert cost_of(without_mechanism(settings)) is None
    assert isinstance(mechanism_of(without_mechanism(settings)), Unchanged)


def test_with_the_servers_noise_nodes_clip_alone() -> None:
    settings = TrainingSettings(
        average="users", clip_norm=0.5, gaussian_scale=2.0, noise_by="server"
    )
    mechanism = mechanism_of(settings)
    assert mechanism.order == 2
    assert mechanism.bounds
    assert not mechanism.noise(7, (3, 2)).any()
    own = mechanism_of(settings.model_copy(update={"noise_by": "nodes"}))
    assert own.noise(7, (3, 2)).all()


@pytest.mark.parametrize("order", [1, 2])
def test_a_bound_of_nothing_leaves_nothing(order: int) -> None:
    change = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
    assert clip_shares(change, 0.0, order=order).tolist() == [0.0, 1.0]
