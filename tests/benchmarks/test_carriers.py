"""The table of carriers on a small data set, and what stands in it beside plain matrices."""

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn.linear_model import Ridge

from client_app.scorers import standardised
from common.methods.carried import SHARES
from common.methods.one_round import ITEM_RIDGES
from tests.server_app.encoders import THEMES

KAPPA = 0.1


@pytest.fixture(scope="module")
def carriers() -> ModuleType:
    """By its folder, since an installed package is called `benchmarks` too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import carriers

        return carriers


@pytest.fixture(scope="module")
def split(carriers: ModuleType, data_folder: Path) -> Any:
    return carriers.Split(str(data_folder), 0, {"encoder": THEMES})


def histories_of(split: Any) -> np.ndarray:
    """0/1 rows of the users that have validation items, (users, warm)."""
    rows = np.zeros((len(split.users), len(split.world.rows("warm"))), np.float32)
    for row, user in zip(rows, split.users, strict=True):
        row[split.whole.histories.of(user)] = 1
    return rows


def test_the_table_has_all_rows_and_the_file_all_numbers(
    carriers: ModuleType,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "told.csv"
    command = ["carriers.py", str(data_folder), "--seeds", "0", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--set", f"encoder={THEMES}", "history=3"])
    carriers.main()
    lines = capsys.readouterr().out.splitlines()
    printed = [line.split(" | ") for line in lines if line.startswith(f"| {data_folder.name} |")]
    with out.open() as file:
        numbers = list(csv.DictReader(file))
    rows = len(printed)
    assert [line[1] for line in printed] == [line["row"] for line in numbers[:rows]]
    assert [line["seed"] for line in numbers] == ["0"] * rows + ["1"] * rows
    for line, *seeds in zip(printed, numbers[:rows], numbers[rows:], strict=True):
        mean = np.mean([100 * float(one["ndcg@20"]) for one in seeds])
        assert line[3].startswith(f"{mean:.2f} ± ")
    assert {line[1]: line[4][:4] for line in printed}[carriers.DEFAULT] == "0.00"


def test_weights_of_the_texts_themselves_are_one_kernel(split: Any) -> None:
    made = split.by_weights(split.weights(split.texts))
    np.testing.assert_array_equal(made, split.default[0])


def test_factors_are_scored_as_plain_matrices(split: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "measured", lambda scorer, _: list(scorer.forms(split.users)))
    x, carried = histories_of(split), split.weights(split.texts)
    arrays = split.arrays
    for by_ridge in (False, True):
        made = split.by_factors(8, by_ridge)
        for place in range(len(ITEM_RIDGES)):
            factors = (arrays["axes"] * np.sqrt(arrays["gains"][place]))[:, :8]
            new = split.predicted(factors)[len(factors) :] if by_ridge else carried @ factors
            scores = (x * arrays["rarity"]) @ factors @ new.T
            both = [standardised(torch.from_numpy(one)) for one in (x @ carried.T, scores)]
            for number, share in enumerate(SHARES):
                wanted = (1 - share) * both[0] + share * both[1]
                got = made[place * len(SHARES) + number]
                np.testing.assert_allclose(got, wanted, atol=2e-4)


def test_the_penalty_is_the_best_of_those_left_out_one_by_one(
    carriers: ModuleType, split: Any
) -> None:
    factors = split.factors(4, 100.0)
    warm = split.texts[: len(factors)].astype(float)

    def error(penalty: float) -> float:
        left = np.arange(len(warm))
        guessed = [
            Ridge(penalty).fit(warm[left != one], factors[left != one]).predict(warm[[one]])[0]
            for one in left
        ]
        return float(np.square(np.array(guessed) - factors).sum())

    best = Ridge(min(carriers.PENALTIES, key=error)).fit(warm, factors)
    np.testing.assert_allclose(split.predicted(factors), best.predict(split.texts), atol=1e-5)


def test_canonical_directions_solve_their_eigenvalue_problem(split: Any) -> None:
    factors = split.factors(256, 100.0).astype(float)
    factors -= factors.mean(0)
    texts = split.texts - split.texts[: len(factors)].mean(0, dtype=float)
    warm = texts[: len(factors)]

    def shrunk(gram: np.ndarray) -> np.ndarray:
        return gram + KAPPA * np.linalg.eigvalsh(gram)[-1] * np.eye(len(gram))

    across = warm.T @ factors
    explained = across @ np.linalg.solve(shrunk(factors.T @ factors), across.T)
    squares, vectors = eigh(explained, shrunk(warm.T @ warm))
    wanted = texts @ vectors[:, -3:] * np.sqrt(squares[-3:])
    made = split.canonical(3)
    np.testing.assert_allclose(made @ made.T, wanted @ wanted.T, atol=1e-6)


def test_a_half_is_measured_with_what_the_other_half_chose(carriers: ModuleType) -> None:
    table = np.zeros((2, len(SHARES), 200, 2))
    first, second = np.split(np.random.default_rng(7).permutation(200), 2)
    table[0, 3, first], table[1, 7, second] = 1.0, 1.0
    table[1, 7, first], table[0, 3, second] = 0.25, 0.5
    assert carriers.by_halves([table]) == pytest.approx([0.375, 0.375])
    second_carrier = np.zeros_like(table)
    second_carrier[1, 5, second] = 0.75
    for lead, expected in ((0.005, 0.375), (0.02, (0.25 + 0.75) / 2)):
        second_carrier[1, 5, first] = 1 + lead  # twice that in both metrics; the noise is 0.02
        told = carriers.by_halves([table, second_carrier])
        assert told == pytest.approx([expected, expected])
