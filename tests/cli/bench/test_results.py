from collections.abc import Mapping

import numpy as np
import polars as pl

from cli.bench.results import SHOWN, _rose, behind, markdown, spread


def users_with(values: np.ndarray, first: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": np.arange(first, first + len(values)), "recall@20": values, "ndcg@20": values}
    )


def test_only_what_is_not_noise_is_behind() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    users = {
        "best": {0: users_with(base)},
        "always a little worse": {0: users_with(base - 0.01)},
        "as good, but noisy": {0: users_with(base - 0.001 + rng.normal(0, 0.5, 400))},
        "the same": {0: users_with(base)},
    }
    means = {name: float(tables[0]["recall@20"].mean()) for name, tables in users.items()}  # type: ignore
    means["best"] += 1e-9
    assert behind(users, "recall@20", means | {"as good, but noisy": 0.0}) >= {
        "always a little worse"
    }
    assert not behind(users, "recall@20", means) & {"the same", "as good, but noisy"}


def test_users_are_paired_by_number_within_a_seed() -> None:
    values = np.linspace(0, 1, 50)
    users = {
        "best": {0: users_with(values), 1: users_with(values + 5)},
        "other": {0: users_with(values[::-1])[::-1], 1: users_with(values[10:] - 0.01, 10)},
    }
    shuffled = users["other"][0].with_columns(pl.Series("recall@20", values - 0.01))
    users["other"][0] = shuffled.sample(fraction=1, shuffle=True, seed=1)
    assert behind(users, "recall@20", {"best": 1.0, "other": 0.9})


def test_spread() -> None:
    assert spread([0.1, 0.2, 0.3], 100) == "20.00 ± 10.00"
    assert spread([0.1234], 100) == "12.34"
    assert spread([None], 100) == "–"


def comparison(values: Mapping[str, float]) -> pl.DataFrame:
    """Rows of methods with these metrics on two seeds; b's trainings diverge."""
    return pl.DataFrame(
        [
            {
                "data": "d", "method": name, "seed": seed, "seconds": 2.0, "memory_mb": 100.0,
                "validation_recall@20": None, "diverged": name == "b",
                "broke_off": 7 if (name, seed) == ("b", 1) else None,
                **{f"test_{metric}": value + seed / 100 for metric in SHOWN},
            }
            for name, value in values.items()
            for seed in (0, 1)
        ],
        infer_schema_length=None,
    )  # fmt: skip


def test_equal_numbers_share_a_place() -> None:
    table = comparison({"a": 0.5, "b": 0.500001, "c": 0.4, "d": 0.3})
    lines = markdown(table, {name: {} for name in "abcd"}).splitlines()
    places = [line.split("|")[2].strip()[:1] for line in lines if line[:4] in ("| a ", "| b ")]
    assert places == ["*", "*"]
    assert "<u>" not in "".join(lines[1:])


def test_a_loss_that_ends_above_its_beginning_has_diverged() -> None:
    assert _rose([0.7, 0.3, 0.8])
    assert not _rose([0.7, 0.9, 0.6]) and not _rose([0.7]) and not _rose([None, None])


def test_the_table_marks_best_second_and_behind() -> None:
    values = {"a": 0.5, "b": 0.4, "content-profile": 0.25}
    table = comparison(values)
    users = {
        name: {seed: users_with(np.full(30, value)) for seed in (0, 1)}
        for name, value in values.items()
    }
    text = markdown(table, users)
    assert "over 2 seeds; " in text
    half = markdown(table.filter((pl.col("seed") == 0) | (pl.col("method") == "a")), users)
    assert "over 1 to 2 seeds, **so methods do not compare yet" in half
    lines = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert lines["| a"].startswith("| a | **50.50 ± 0.71** |")
    assert lines["| b †"].startswith("| b † | <u>40.50 ± 0.71</u>* |")
    assert "| 1.980 | – | 2 | 100 |" in lines["| a"]
    assert "first round: b (2 of 2 seeds, overflow in round 7). The best" in text
    assert "†" not in markdown(table.filter(pl.col("method") != "b"), users)
    assert "25.50 ± 0.71*" in lines["| content-profile"]
