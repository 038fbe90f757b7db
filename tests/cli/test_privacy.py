"""`snowdrop privacy`: the noise for an ε, and the ε of a noise."""

import math
import re

import pytest
from typer.testing import CliRunner

from cli.commands import app
from cli.privacy import deviation, least_noise
from common.errors import SnowdropError
from common.privacy import gaussian_epsilon


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["privacy", *map(str, arguments)])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def noise_of(told: str) -> float:
    return float(re.search(r"_scale = (\S+)", told)[1])  # type: ignore[index]


def total_of(told: str) -> float:
    return float(re.search(r"in a round, (\S+) over", told)[1])  # type: ignore[index]


def test_the_noise_for_an_epsilon_is_the_least(capsys: pytest.CaptureFixture[str]) -> None:
    told = run("--target-epsilon", 2, "--rounds", 40, "--users", 1000)
    scale = noise_of(told)
    mu = math.sqrt(40) * 2 / scale  # two changes of norm 1 differ by 2
    assert gaussian_epsilon(mu, 1e-6) <= 2
    assert gaussian_epsilon(mu * 1.002, 1e-6) > 2
    assert "at δ = 1e-06" in told
    assert f"--set gaussian_scale={scale:.6g}" in told
    assert "--set rounds=40" in told
    assert "privacy_delta" not in told  # a run has the same without it


@pytest.mark.parametrize(
    "more",
    [
        ("--mechanism", "laplace"),
        ("--clip-norm", 0.1),
        ("--noise-by", "server", "--fraction", 0.1),
        ("--fraction", 0.2, "--delta", 1e-5),
    ],
)
def test_one_way_and_back(more: tuple[object, ...]) -> None:
    shared = ("--rounds", 20, "--users", 300, *more)
    told = run("--target-epsilon", 1.5, *shared)
    assert 1.49 < total_of(told) <= 1.5
    assert run("--noise", noise_of(told), *shared) == told


def test_a_trusted_server_needs_less_noise() -> None:
    shared = ("--target-epsilon", 1, "--rounds", 10, "--users", 500)
    assert noise_of(run(*shared, "--noise-by", "server")) < noise_of(run(*shared)) / 1.9
    sampled = noise_of(run(*shared, "--noise-by", "server", "--fraction", 0.1))
    assert sampled < noise_of(run(*shared, "--noise-by", "server")) / 2


def test_the_noise_of_a_mean() -> None:
    assert deviation(4.0, "gaussian", "nodes", 100) == pytest.approx(0.4)
    assert deviation(4.0, "laplace", "nodes", 100) == pytest.approx(0.4 * math.sqrt(2))
    assert deviation(4.0, "gaussian", "server", 100) == pytest.approx(0.04)
    assert deviation(4.0, "gaussian", "sum", 100) == pytest.approx(0.04)


def test_noise_of_the_sum_costs_what_the_servers_costs_and_needs_secure_sums() -> None:
    told = {}
    for by in ("sum", "server", "nodes"):
        every = ["privacy", "--rounds", "1", "--users", "6040", "--delta", "1e-6",
                 "--target-epsilon", "1", "--noise-by", by]  # fmt: skip
        told[by] = CliRunner().invoke(app, every).stdout
    assert (
        told["sum"]
        .replace("noise_by = sum", "noise_by = server")
        .replace("at least ", "")
        .splitlines()[:3]
        == (told["server"].splitlines()[:3])
    )
    assert "gaussian_scale = 4.22" in told["sum"]
    assert "gaussian_scale = 8.45" in told["nodes"]
    given = "--set fraction=1 --set rounds=1 --set privacy_delta=1e-06 --set secure_sums=true"
    assert told["sum"].rstrip().endswith(given)


def test_noise_of_the_sum_is_told_for_the_nodes_that_add_it() -> None:
    shared = ("--rounds", 1, "--users", 1000, "--noise", 4, "--noise-by", "sum")
    assert "--nodes N tells how much" in run(*shared)
    told = run(*shared, "--nodes", 10)
    assert "standard deviation at least 0.004 on" in told
    assert "while all 10 nodes answer, it is 0.00478\n" in told  # 7 of 10 must answer
    assert told.rstrip().endswith("--set secure_sums=true --set nodes=10")
    assert "over 1 round, at" in told
    wrong = ["privacy", *map(str, shared[:-1]), "server", "--nodes", "10"]
    assert "give --noise-by sum" in str(CliRunner().invoke(app, wrong).exception)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--noise-by", "sum"), ""),
        (("--noise-by", "sum", "--clip-norm", 0.5), "one-round needs clip_norm = 1"),
        (("--mechanism", "laplace"), "one-round needs laplace_scale = 0"),
    ],
)
def test_settings_that_the_default_method_refuses_are_told(
    more: tuple[object, ...], why: str
) -> None:
    told = run("--rounds", 1, "--users", 1000, "--noise", 4, *more)
    assert ("the default method refuses these" in told) == bool(why)
    assert why in told


def test_noise_that_does_not_exist() -> None:
    with pytest.raises(SnowdropError, match="no noise has ε = 1"):
        least_noise(lambda scale: 2.0, 1.0)
    assert least_noise(lambda scale: 1 / scale, 1000.0) == pytest.approx(1e-3, rel=2e-3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either --target-epsilon"),
        (["--target-epsilon", "1", "--noise", "1"], "give either --target-epsilon"),
        (["--target-epsilon", "0"], "--target-epsilon 0 must be above 0"),
        (["--noise", "0"], "--noise 0 must be above 0"),
        (["--noise", "1", "--fraction", "0"], "--fraction 0 must be above 0"),
        (["--noise", "1", "--delta", "1"], "--delta 1 must lie between 0 and 1"),
        (["--noise", "1", "--clip-norm", "0"], "--clip-norm 0 must be above 0"),
        (
            ["--noise", "1", "--noise-by", "sum", "--mechanism", "laplace"],
            "noise_by = sum needs --mechanism gaussian",
        ),
        (
            ["--noise", "1", "--noise-by", "server", "--mechanism", "laplace"],
            "noise_by = server needs --mechanism gaussian",
        ),
    ],
)
def test_what_makes_no_sense_is_one_sentence(arguments: list[str], sentence: str) -> None:
    every = ["privacy", "--rounds", "3", "--users", "9", *arguments]
    done = CliRunner().invoke(app, every)
    assert done.exit_code != 0
    assert isinstance(done.exception, SnowdropError)
    assert sentence in str(done.exception)
