"""The tables of a comparison: a row a run, and methods with spread and significance."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table

from cli.bench.artefacts import SHOWN_METRICS
from cli.bench.runs import Run
from common.durable import write_atomic
from common.metrics import metric_names
from common.settings import KS

SHOWN = ("recall@20", "recall@50", "recall@100", "precision@20", "ndcg@20", "ndcg@100")
RESAMPLES = 2_000
LEVEL = 95


def write_results(runs: Sequence[Run], out: Path, told: str = "") -> pl.DataFrame:
    """Write ``results.csv`` and ``results.md`` of the whole runs, with what else is to be told.

    Returns
    -------
    DataFrame
        What ``results.csv`` holds.
    """
    done = [run for run in runs if run.whole]
    table = pl.DataFrame([row(run) for run in done], infer_schema_length=None)
    write_atomic(out / "results.csv", table.write_csv().encode())
    text = markdown(table, user_tables(done)) + absent(runs) + (f"\n{told}\n" if told else "")
    write_atomic(out / "results.md", text.encode())
    return table


def absent(runs: Sequence[Run]) -> str:
    """Which runs of a comparison are not in its table, as a paragraph; empty where all are."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        if not run.whole:
            seeds.setdefault(run.chosen.name, []).append(str(run.seed))
    if not seeds:
        return ""
    named = "; ".join(f"{name} (seed {', '.join(each)})" for name, each in seeds.items())
    return f"\nNot in the table, since they failed or were not made: {named}.\n"


def row(run: Run) -> dict[str, Any]:
    """One run: what it was, all metrics as fractions, seconds, memory."""
    summary = run.summary()
    metrics = {
        f"{split}_{name}": summary.get(split, {}).get(name)
        for split in ("validation", "test")
        for name in metric_names(KS)
    }
    rounds = pl.read_csv(run.folder / "rounds.csv", infer_schema_length=None)
    fitted = rounds["generator_seconds"].cast(pl.Float64).sum()
    return {
        "data": Path(run.settings.data).name,
        "method": run.chosen.name,
        "seed": run.seed,
        **metrics,
        "users": summary["tested_users"],
        "best_round": summary["best_round"],
        "broke_off": summary.get("broke_off"),
        "diverged": "broke_off" in summary or _rose(rounds["loss"].cast(pl.Float64).to_list()),
        "seconds": round(summary["timing"]["total_seconds"], 3),
        "generator_seconds": round(fitted, 3),
        "memory_mb": round(summary["memory"]["peak_rss_mb"], 1),
        "digest": run.digest,
    }


def user_tables(runs: Sequence[Run]) -> dict[str, dict[int, pl.DataFrame]]:
    """``users.parquet`` of each method and seed."""
    tables: dict[str, dict[int, pl.DataFrame]] = {}
    for run in runs:
        path = run.folder / "users.parquet"
        tables.setdefault(run.chosen.name, {})[run.seed] = pl.read_parquet(path)
    return tables


def markdown(table: pl.DataFrame, users: Mapping[str, Mapping[int, pl.DataFrame]]) -> str:
    """Mean ± standard deviation over seeds on test items; the best bold, the second underlined."""
    methods = table["method"].unique(maintain_order=True).to_list()
    frames = {name: table.filter(pl.col("method") == name) for name in methods}
    runs = sorted({frame.height for frame in frames.values()})
    seeds = f"{runs[0]} seeds" if runs[0] > 1 else "one seed"
    if len(runs) > 1:
        seeds = (
            f"{runs[0]} to {runs[-1]} seeds, **so methods do not compare yet: runs are missing**"
        )
    columns = [f"test_{name}" for name in SHOWN]
    means = {c: {name: _mean(frames[name], c) for name in methods} for c in columns}
    shown = {c: {name: round(100 * mean, 2) for name, mean in means[c].items()} for c in columns}
    marks = {f"test_{m}": behind(users, m, means[f"test_{m}"]) for m in SHOWN_METRICS}
    profile = means["test_recall@20"].get("content-profile")
    heads = ["", *SHOWN, "recall@20 / content profile", "validation recall@20", "s", "MB"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name in methods:
        frame = frames[name]
        cells = [_marked(name, frame)]
        for column in columns:
            text = spread(frame[column].to_list(), 100)
            ahead = sum(value > shown[column][name] for value in shown[column].values())
            text = (f"**{text}**", f"<u>{text}</u>", text)[min(ahead, 2)]
            cells.append(text + ("*" if name in marks.get(column, ()) else ""))
        recall = means["test_recall@20"][name]
        cells.append(f"{recall / profile:.3f}" if profile else "–")
        cells.append(spread(frame["validation_recall@20"].to_list(), 100))
        cells.append(f"{_mean(frame, 'seconds'):.0f}")
        cells.append(f"{_mean(frame, 'memory_mb'):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    data = ", ".join(table["data"].unique(maintain_order=True).to_list())
    return "\n".join([
        f"**{data}**: cold test items, per cent, mean ± standard deviation over {seeds}; "
        "best **bold**, second <u>underlined</u>",
        "",
        *lines,
        "",
        f"\\* behind the best method at {LEVEL} %: paired bootstrap over users (recall@20 and "
        f"ndcg@20 alone), {RESAMPLES} resamples of the users within each seed of the difference to "
        "the best method, of which no more than "
        f"{(100 - LEVEL) / 2:g} % are below zero. Seeds change random numbers and, where items.csv "
        "has no split, the split; their spread is not in this test.",
        "",
        *(f"{line}\n" for line in divergence(table)),
    ])  # fmt: skip


def divergence(table: pl.DataFrame) -> list[str]:
    """A sentence on the methods whose trainings diverged; nothing where none did."""
    named = []
    for method, *_ in table.filter("diverged").select("method").unique(maintain_order=True).rows():
        frame = table.filter(pl.col("method") == method)
        rounds = ", ".join(str(number) for number in frame["broke_off"].drop_nulls())
        where = f", overflow in round {rounds}" if rounds else ""
        named.append(f"{method} ({frame['diverged'].sum()} of {frame.height} seeds{where})")
    if not named:
        return []
    return [
        f"† diverged, by overflow or to a loss above that of the first round: {'; '.join(named)}. "
        "The best validated round is tested. A lower item_lr or head_lr may mend it, and where "
        "item_pull is above 0 a larger dim."
    ]


def _marked(name: str, frame: pl.DataFrame) -> str:
    return name + (" †" if frame["diverged"].any() else "")


def _rose(losses: Sequence[float | None]) -> bool:
    known = [loss for loss in losses if loss is not None]
    return len(known) > 1 and not known[-1] <= known[0]


def short_table(table: pl.DataFrame) -> Table:
    """What fits a terminal."""
    columns = [*(f"test_{name}" for name in SHOWN_METRICS), "validation_recall@20"]
    shown = Table("method", *(name.replace("_", " ") for name in columns), "s", box=None)
    for name, *_ in table.select("method").unique(maintain_order=True).iter_rows():
        frame = table.filter(pl.col("method") == name)
        cells = [spread(frame[column].to_list(), 100) for column in columns]
        shown.add_row(_marked(name, frame), *cells, f"{_mean(frame, 'seconds'):.0f}")
    return shown


def behind(
    users: Mapping[str, Mapping[int, pl.DataFrame]], metric: str, means: Mapping[str, float]
) -> set[str]:
    """Methods that are behind the best one by more than noise, by a paired bootstrap over users."""
    best = max(means, key=lambda name: means[name])
    found = set()
    for name in means:
        shared = sorted(users[best].keys() & users[name].keys())
        if name == best or not shared:
            continue
        rng = np.random.default_rng(0)
        lead = np.zeros(RESAMPLES)
        for seed in shared:
            pair = users[best][seed].join(users[name][seed], on="user", how="inner")
            gap = (pair[metric] - pair[f"{metric}_right"]).to_numpy()
            for at in range(RESAMPLES):
                lead[at] += gap[rng.integers(0, len(gap), len(gap))].mean() / len(shared)
        if np.quantile(lead, (100 - LEVEL) / 200) > 0:
            found.add(name)
    return found


def spread(values: Sequence[float | None], scale: float) -> str:
    """Mean ± standard deviation, the latter only of two values or more."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.fmean(known):.2f}"
    return f"{mean} ± {statistics.stdev(known):.2f}" if len(known) > 1 else mean


def _mean(frame: pl.DataFrame, column: str) -> float:
    return float(frame[column].cast(pl.Float64).fill_null(0).mean() or 0.0)  # type: ignore[arg-type]
