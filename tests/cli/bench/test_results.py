"""``results.csv``, ``results.md`` and the table on the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from cli.bench.results import _rose, markdown, row, short_table, spread, write_results
from common.settings import RunSettings
from common.task import shown_metrics
from server_app.run_folder import RunFolder


def users_with(values: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"user": np.arange(len(values)), "recall@20": values, "ndcg@20": values})


def test_spread() -> None:
    assert spread([0.1, 0.2, 0.3], 100) == "20.00 ± 10.00"
    assert spread([0.1234], 100) == "12.34"
    assert spread([None], 100) == "–"


KINDS = {"rule": "rule", "other rule": "rule", "chance": "floor"}
TWINS = {"a:frozen": "a"}


def comparison(values: Mapping[str, float], validated: bool = True) -> pl.DataFrame:
    """Rows of methods with these metrics on two seeds; b's trainings diverge."""
    return pl.DataFrame(
        [
            {
                "data": "d", "method": name, "kind": KINDS.get(name, "trained"),
                "twin_of": TWINS.get(name, ""), "seed": seed, "seconds": 2.0, "memory_mb": 100.0,
                "diverged": name == "b", "broke_off": 7 if (name, seed) == ("b", 1) else None,
                **{f"test_{metric}": value + seed / 100 for metric in shown_metrics("cold-items")},
                "validation_recall@20": (0.6 if name == "rule" else value) if validated else None,
            }
            for name, value in values.items()
            for seed in (0, 1)
        ],
        infer_schema_length=None,
    )  # fmt: skip


def test_what_nodes_sent_is_told_where_some_sent_synthetic_users() -> None:
    plain = comparison({"a": 0.5, "a:frozen": 0.4})
    sent = plain.with_columns(
        nodes=pl.lit(8),
        synthetic_users=pl.Series([30, 34, 0, 0]),
        mb_up=pl.Series([0.25, 0.25, None, None]),
        mb_down=pl.Series([8.0, 8.0, None, None]),
    )
    rows = rows_of(markdown(sent, {}))
    first, last = (rows[""].index(head) for head in ("synthetic users", "MB down"))
    assert rows["a"][first : last + 1] == ["32.00 ± 2.83", "0.25 ± 0.00", "8.00 ± 0.00"]
    assert rows["↳ a:frozen"][first : last + 1] == ["0.00 ± 0.00", "–", "–"]
    assert rows["a"][last + 1 :] == ["2", "100"]
    assert "Users are shared out over 8 nodes, each of which makes" in markdown(sent, {})
    for table in (plain, sent.with_columns(synthetic_users=pl.lit(0))):
        assert "MB up" not in markdown(table, {}) and "shared out" not in markdown(table, {})


def rows_of(text: str) -> dict[str, list[str]]:
    """Cells of a table's rows by method."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {cells[0]: cells for cells in rows}


def test_equal_numbers_share_a_place() -> None:
    text = markdown(comparison({"a": 0.5, "c": 0.500001, "d": 0.4, "e": 0.3}), {})
    rows = rows_of(text)
    assert [rows[name][1][:2] for name in "acde"] == ["**", "**", "40", "30"]
    assert "<u>" not in "".join(text.splitlines()[1:])


def test_a_loss_that_ends_above_its_beginning_has_diverged() -> None:
    assert _rose([0.7, 0.3, 0.8])
    assert not _rose([0.7, 0.9, 0.6]) and not _rose([0.7]) and not _rose([None, None])
    assert not _rose([])


def test_the_loss_of_a_twin_with_drawn_users_says_nothing_of_divergence(tmp_path: Path) -> None:
    rising = [{"round": 1, "loss": 0.5}, {"round": 2, "loss": 0.6}]
    twin = finished(tmp_path, "net:frozen", "trained", "net", rising)
    assert row(twin)["diverged"]
    twin.settings = twin.settings.model_copy(update={"fraction": 0.5})
    assert not row(twin)["diverged"]
    method = finished(tmp_path, "net", "trained", "", rising)
    method.settings = method.settings.model_copy(update={"fraction": 0.5})
    assert row(method)["diverged"]


VALUES = {"a": 0.5, "b": 0.4, "rule": 0.25, "other rule": 0.45, "chance": 0.01, "a:frozen": 0.49}


def test_the_table_marks_best_second_and_behind() -> None:
    table = comparison(VALUES)
    users = {
        name: {seed: users_with(np.full(30, value)) for seed in (0, 1)}
        for name, value in VALUES.items()
    }
    text = markdown(table, users)
    rows = rows_of(text)
    assert "over 2 seeds; " in text
    assert rows["a"][1] == "**50.50 ± 0.71**"
    assert rows["↳ a:frozen"][1] == "<u>49.50 ± 0.71</u>\\*"
    assert rows["b †"][1] == "40.50 ± 0.71\\*"
    assert rows["b †"][2] == "40.50 ± 0.71"  # recall@50 of single users is not known
    assert rows["chance"][1] == "1.50 ± 0.71\\*"
    assert rows[""][7:] == [
        "recall@20 ÷ best local rule", "federation adds", "validation recall@20", "s", "MB",
    ]  # fmt: skip
    assert rows["a"][7:] == ["1.980 ▲", "+1.00 ▲", "50.00 ± 0.00", "2", "100"]
    assert rows["rule"][7:9] == ["1.000", ""]
    assert rows["chance"][7] == "0.059 ▼"
    half = markdown(table.filter((pl.col("seed") == 0) | (pl.col("method") == "a")), users)
    assert "over 1 to 2 seeds, **so methods cannot be compared yet" in half


def test_a_frozen_twin_stands_under_its_method() -> None:
    names = list(rows_of(markdown(comparison(VALUES), {})))
    assert names[2:4] == ["a", "↳ a:frozen"]
    without = rows_of(markdown(comparison({"a": 0.5, "rule": 0.2}), {}))
    assert "federation adds" not in without[""]
    unfinished = rows_of(markdown(comparison({"a": 0.5, "a:frozen": 0.4}), {}))
    assert unfinished[""][7:9] == ["federation adds", "validation recall@20"]
    assert unfinished["a"][7] == "+10.00"


def test_the_rule_that_validates_best_is_the_bar() -> None:
    text = markdown(comparison(VALUES), {})
    assert "The best local rule is rule: of the rules" in text
    assert "mean validation recall@20" in text
    text = markdown(comparison(VALUES, validated=False), {})
    assert "The best local rule is other rule" in text
    assert "because no rule was validated" in text
    assert rows_of(text)["other rule"][7] == "1.000"


def test_diverged_trainings_are_told() -> None:
    text = markdown(comparison(VALUES), {})
    assert "happened to b (2 of 2 seeds, overflow in round 7). The best" in text
    assert "†" not in markdown(comparison({"a": 0.5, "rule": 0.2}), {})


def test_the_terminal_shows_the_same_bar() -> None:
    text = "\n".join(short_table(comparison(VALUES)).lines(100))
    assert "The best local rule is rule" in text
    assert "d: cold test items, per cent, mean ± standard deviation over 2 seeds" in text
    assert "minus that of its frozen twin (↳)" in " ".join(text.split())
    lines = text.splitlines()
    (own,) = (k for k, line in enumerate(lines) if line.startswith("a  "))
    assert lines[own + 1].startswith("↳ frozen twin")  # its name would not fit
    for cell in ("50.50 ± 0.71", "1.980", "+1.00"):
        assert cell in lines[own], lines[own]
    assert "local rule" in text and "federation" in text and "…" not in text


@dataclass
class Finished:
    """Stands in for a run of the comparison."""

    chosen: Any
    settings: RunSettings
    seed: int = 0
    digest: str = "0123456789"
    whole: bool = True

    @property
    def folder(self) -> Path:
        return Path(self.settings.run_dir)


def finished(out: Path, name: str, kind: str, twin_of: str, history: list[dict[str, Any]]) -> Any:
    settings = RunSettings.parse({"data": "/some/office", "run_dir": str(out / "runs" / name)})
    run = Finished(SimpleNamespace(name=name, kind=kind, twin_of=twin_of, title=name), settings)
    folder = RunFolder(run.folder)
    folder.write_rounds(history)
    folder.write_users(users_with(np.full(9, 0.5)))
    folder.write_summary(
        {
            "tested_users": 9, "best_round": history[-1]["round"] if history else None,
            "test": {"recall@20": 0.5}, "validation": {"recall@20": 0.25},
            "timing": {"total_seconds": 1.23456}, "memory": {"peak_rss_mb": 99.96},
        }
    )  # fmt: skip
    return run


def test_results_of_finished_runs_are_written(tmp_path: Path) -> None:
    history = [
        {"round": 1, "loss": 0.5, "generator_seconds": 0.25, "epsilon": 3},
        {"round": 2, "loss": 0.6, "generator_seconds": 0.5},
    ]
    runs = [
        finished(tmp_path, "net", "trained", "", history),
        finished(tmp_path, "net:frozen", "trained", "net", history[:1]),
        finished(tmp_path, "rule", "rule", "", []),
    ]
    absent = finished(tmp_path, "late", "trained", "", [])
    absent.whole = False
    write_results([*runs, absent], tmp_path, "Given to all methods: nothing.")
    table = pl.read_csv(tmp_path / "results.csv")
    assert table.columns[:5] == ["data", "method", "kind", "twin_of", "seed"]
    assert table["data"].unique().to_list() == ["office"]
    assert table["kind"].to_list() == ["trained", "trained", "rule"]
    assert table["twin_of"].fill_null("").to_list() == ["", "net", ""]
    assert table["diverged"].to_list() == [True, False, False]
    assert table["generator_seconds"].to_list() == [0.75, 0.25, 0.0]
    assert table["best_round"].to_list() == [2, 1, None]
    assert table["memory_mb"].to_list() == [100.0] * 3
    text = (tmp_path / "results.md").read_text()
    assert "have not run yet: late (seed 0)." in text
    assert text.endswith("Given to all methods: nothing.\n")
    assert rows_of(text)["rule"][7] == "1.000"


def test_last_warm_items_are_told_as_hits() -> None:
    names = shown_metrics("last-warm-item")
    table = comparison({"a": 0.5, "rule": 0.25}).with_columns(
        pl.lit("last-warm-item").alias("task"), pl.lit(0.4).alias("test_ndcg@50")
    )
    users = {
        name: {seed: pl.DataFrame({"user": range(30), **dict.fromkeys(names, value)})
               for seed in (0, 1)}
        for name, value in {"a": 0.5, "rule": 0.25}.items()
    }  # fmt: skip
    text = markdown(table, users)
    assert text.startswith("**d**: each user's last warm item, per cent")
    rows = rows_of(text)
    assert rows[""][1:7] == ["hr@20", "hr@50", "ndcg@20", "ndcg@50", "hr@20 ÷ best local rule",
                             "validation hr@20"]  # fmt: skip
    assert rows["rule"][2] == "<u>25.50 ± 0.71</u>\\*"  # hr@50 of single users is tested too
    assert "Only hr@20, hr@50, ndcg@20 and ndcg@50 are tested." in text
    assert "has the highest mean validation hr@20." in text
    assert "recall" not in "\n".join(short_table(table).lines(120))
