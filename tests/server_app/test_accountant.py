"""What rounds cost in privacy: against closed forms, published values and plain sums."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom, norm

from common.errors import SnowdropError
from common.privacy import gaussian_delta, gaussian_epsilon
from common.settings import RunSettings
from server_app import strategy as strategy_module
from server_app.accountant import Release, delta_of, epsilon, release, spare_noise, tell
from server_app.aggregation import PlainSum
from tests.server_app.runs import rounds_of, run_here, run_values, state_of

PLAIN = {"average": "users", "clip_norm": 0.5}


def private(**changed: Any) -> RunSettings:
    return RunSettings.parse({"method": "ridge", **PLAIN, "rounds": 10, **changed})


def test_a_round_by_its_settings() -> None:
    assert release(private()) is None
    assert release(private(laplace_scale=0.25)) == Release(4.0, 0.0)
    assert release(private(gaussian_scale=2.0, fraction=0.5)) == Release(0.0, 0.25, 0.5)
    server = private(gaussian_scale=2.0, fraction=0.5, noise_by="server")
    assert release(server) == Release(0.0, 0.0625, 0.5, hidden=True)


def test_nothing_costs_nothing() -> None:
    assert epsilon([], 1e-6) == 0.0


def test_one_round_of_pure_noise_has_its_epsilon() -> None:
    for each in (0.025, 1.0, 4.0):
        assert epsilon([Release(each, 0.0)], 1e-9) == pytest.approx(each, rel=1e-3)
        assert epsilon([Release(each, 0.0)], 1e-9) <= each


def randomised(each: float, rounds: int, total: float) -> float:
    """δ at ε = ``total`` of randomised responses: Σ_k C(n, k) max(0, p^(n−k) (1−p)^k − e^ε p^k
    (1−p)^(n−k)), k of which are turned round."""
    turned = 1 - 1 / (1 + math.exp(-each))
    lost = [(rounds - 2 * k) * each for k in range(rounds + 1)]
    chance = binom.pmf(range(rounds + 1), rounds, turned)
    return sum(c * max(0.0, 1 - math.exp(total - x)) for c, x in zip(chance, lost, strict=True))


def least(delta_at: Callable[[float], float], delta: float, high: float) -> float:
    """The least ε with at most this δ, by bisection."""
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(("each", "rounds"), [(0.025, 40), (0.3, 100)])
def test_pure_rounds_compose_as_randomised_responses(each: float, rounds: int) -> None:
    """The optimal composition of Kairouz, Oh and Viswanath (arXiv 1311.0776, theorem 3.3)."""
    delta = 1e-6
    high = least(lambda total: randomised(each, rounds, total), delta, each * rounds)
    found = epsilon([Release(each, 0.0)] * rounds, delta)
    assert found == pytest.approx(high, rel=5e-3)
    assert high - 1e-9 <= found < each * rounds


def test_gaussian_rounds_compose_to_one() -> None:
    releases = [Release(0.0, 0.01)] * 40 + [Release(0.0, 0.25)]
    assert epsilon(releases, 1e-5) == gaussian_epsilon(math.sqrt(0.65), 1e-5)
    both = epsilon([*releases, Release(0.5, 0.0)], 1e-5)
    alone = gaussian_epsilon(math.sqrt(0.65), 1e-5)
    assert alone < both <= alone + 0.5


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_who_is_seen_to_be_left_out_gives_nothing_away(rate: float) -> None:
    """δ(ε) = Σ_k Binomial(T, q)(k) · δ of k Gaussian rounds."""
    rounds, mu, delta = 40, 0.2, 1e-6

    def of(total: float) -> float:
        counts = range(1, rounds + 1)
        return sum(
            binom.pmf(k, rounds, rate) * gaussian_delta(math.sqrt(k) * mu, total) for k in counts
        )

    found = epsilon([Release(0.0, mu**2, rate)] * rounds, delta)
    assert of(found) <= delta
    assert of(found * 0.999) > delta
    assert found < epsilon([Release(0.0, mu**2)] * rounds, delta)


def test_pure_rounds_that_leave_a_user_out_give_nothing_away() -> None:
    each, rounds, rate, delta = 0.3, 20, 0.3, 1e-6

    def of(total: float) -> float:
        counts = range(1, rounds + 1)
        return sum(binom.pmf(k, rounds, rate) * randomised(each, k, total) for k in counts)

    exact = least(of, delta, each * rounds)
    assert epsilon([Release(each, 0.0, rate)] * rounds, delta) == pytest.approx(exact, rel=5e-3)


@pytest.mark.parametrize("total", [0.05, 0.5])
def test_one_round_of_hidden_sampling_in_closed_form(total: float) -> None:
    """δ(ε) of (1 − q) N(0, σ²) + q N(1, σ²) against N(0, σ²), by where the first one prevails."""
    rate, sigma = 0.1, 1.5
    at = sigma**2 * math.log((math.exp(total) - 1 + rate) / rate) + 0.5
    out, there = norm.sf(at / sigma), norm.sf((at - 1) / sigma)
    delta = (1 - rate) * out + rate * there - math.exp(total) * out
    found = epsilon([Release(0.0, sigma**-2, rate, hidden=True)], delta)
    assert found == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize(
    ("multiplier", "rate", "steps", "moments"),
    [
        # Abadi et al., "Deep Learning with Differential Privacy", arXiv 1607.00133, section 3.2.
        (4.0, 0.01, 10_000, 1.26),
        # Bu, Dong, Long and Su, "Deep Learning with Gaussian Differential Privacy", figure 4:
        # MNIST, batches of 256, 20 epochs.
        (1.3, 256 / 60_000, 4_687, 1.34),
    ],
)
def test_many_rounds_of_hidden_sampling_against_published_values(
    multiplier: float, rate: float, steps: int, moments: float
) -> None:
    """Below the moments accountant, and near the limit μ = q √(T (e^(1/σ²) − 1)) of many rounds."""
    found = epsilon([Release(0.0, multiplier**-2, rate, hidden=True)] * steps, 1e-5)
    assert found < moments
    limit = rate * math.sqrt(steps * (math.exp(multiplier**-2) - 1))
    assert found == pytest.approx(gaussian_epsilon(limit, 1e-5), rel=0.05)


def test_what_is_hidden_costs_less_than_what_is_seen() -> None:
    seen = epsilon([Release(0.0, 0.04, 0.1)] * 40, 1e-6)
    assert epsilon([Release(0.0, 0.04, 0.1, hidden=True)] * 40, 1e-6) < seen


def test_an_epsilon_beyond_hope_is_told_quickly() -> None:
    assert epsilon([Release(50.0, 0.0)] * 40, 1e-6) == 2000.0
    assert epsilon([Release(0.0, 1e4, 0.5)] * 40, 1e-6) > 1e4


def test_delta_follows_the_users() -> None:
    assert delta_of(private(), 100) == 1e-4
    assert delta_of(private(privacy_delta=1e-7), 100) == 1e-7


def noisy_run(data: Path, folder: Path, **changed: Any) -> dict[str, Any]:
    return run_values(
        data, folder, method="own-features", **{"baselines": False, "rounds": 2, **PLAIN, **changed}
    )


def test_a_run_says_what_it_spends(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = noisy_run(data_folder, tmp_path, gaussian_scale=10.0, baselines=True, twin=True)
    with caplog.at_level("INFO", "snowdrop"):
        summary = run_here(values)
    users = summary["dataset"]["users"]
    delta = users**-2
    rows = rounds_of(tmp_path)
    assert "loss" not in {name for name, value in rows[0].items() if value}
    for number, row in enumerate(rows, start=1):
        assert float(row["epsilon"]) == pytest.approx(gaussian_epsilon(0.1, delta))
        total = gaussian_epsilon(0.1 * math.sqrt(number), delta)
        assert float(row["epsilon_total"]) == pytest.approx(total)
        assert float(row["delta"]) == pytest.approx(delta)
    assert summary["privacy"] == {
        "noise": "gaussian",
        "noise_by": "nodes",
        "rounds": 2,
        "epsilon_round": pytest.approx(gaussian_epsilon(0.1, delta)),
        "epsilon": pytest.approx(gaussian_epsilon(0.1 * math.sqrt(2), delta)),
        "delta": pytest.approx(delta),
        "metrics_without_noise": False,
    }
    assert "test" not in summary
    assert summary["baselines"] == {}  # no twin, whose rounds would spend as much again
    assert summary["dataset"]["interactions"]["warm"] is None
    assert "metrics stay on the nodes" in caplog.text
    assert not any("protects nobody" in record.message for record in caplog.records)
    again = {**values, "rounds": 3, "resume": True}
    run_here(again)
    assert float(rounds_of(tmp_path)[2]["epsilon_total"]) == pytest.approx(
        gaussian_epsilon(0.1 * math.sqrt(3), delta)
    )


def test_metrics_that_are_released_are_said_to_be_outside(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "snowdrop"):
        summary = run_here(
            noisy_run(data_folder, tmp_path, laplace_scale=0.02, release_metrics=True)
        )
    assert summary["test"]["recall@20"] >= 0
    assert summary["privacy"]["metrics_without_noise"]
    assert summary["privacy"]["epsilon"] == pytest.approx(100.0, rel=1e-4)
    assert "metrics carry no noise and are outside ε" in caplog.text
    assert "ε = 100 over all rounds protects nobody" in caplog.text


def test_without_noise_there_is_no_column(data_folder: Path, tmp_path: Path) -> None:
    summary = run_here(noisy_run(data_folder, tmp_path, rounds=1))
    assert not {"epsilon", "epsilon_total", "delta"} & set(rounds_of(tmp_path)[0])
    assert summary["privacy"] is None
    assert state_of(tmp_path, 1)["spent"] == []


def test_a_round_that_is_tried_again_counts_twice(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    combine, calls = PlainSum.combine, []

    def first_fails(self: Any, answers: Any, expected: Any, scale: float) -> Any:
        calls.append(len(answers))
        if len(calls) > 1:
            return combine(self, answers, expected, scale)
        summed = combine(self, [], expected, scale)
        return summed + type(summed)(0, 0.0, summed.sums, 0.0, {
            node: SnowdropError("misshapen") for node, _ in answers
        })  # fmt: skip

    monkeypatch.setattr(PlainSum, "combine", first_fails)
    monkeypatch.setattr(strategy_module.time, "sleep", lambda seconds: None)
    summary = run_here(noisy_run(data_folder, tmp_path, gaussian_scale=10.0, rounds=1))
    assert summary["privacy"]["rounds"] == 2


def test_tell_needs_noise(caplog: pytest.LogCaptureFixture) -> None:
    class Quiet:
        settings, spent, users, round = private(), [], 3, 0

    with caplog.at_level("INFO", "snowdrop"):
        tell(Quiet())  # type: ignore[arg-type]
    assert not caplog.records


@pytest.mark.parametrize(
    ("nodes", "certain"), [(3, 3), (10, 7), (46, 31), (47, 17), (48, 17), (200, 23)]
)
def test_noise_of_a_secure_sum_is_enough_for_the_nodes_that_are_certain_to_be_in_it(
    nodes: int, certain: int
) -> None:
    assert spare_noise(nodes) == pytest.approx((nodes / certain) ** 0.5)
