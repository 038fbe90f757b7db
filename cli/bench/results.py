"""The tables of a comparison: one row per run, and one row per method with its spread."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from cli.bench.curve import curve_table
from cli.bench.runs import Run
from cli.comparison import (
    BEHIND,
    GAIN_HEAD,
    Comparison,
    Entry,
    Users,
)
from cli.short_table import ShortTable
from common.bar import BAR_METRIC
from common.durable import write_atomic
from common.metrics import metric_names
from common.settings import KS, RunSettings
from common.task import ranked_words, shown_metrics
from server_app.run_folder import RunFolder


def write_results(runs: Sequence[Run], out: Path, told: str = "") -> pl.DataFrame:
    """Write ``results.csv`` and ``results.md`` of the runs that are whole.

    Parameters
    ----------
    runs : Sequence[Run]
        All runs of the comparison.
    out : Path
        Folder of the comparison.
    told : str
        A paragraph for the end of ``results.md``.

    Returns
    -------
    DataFrame
        What ``results.csv`` holds.

    Raises
    ------
    SnowdropError
        If a file of a run is damaged, or a table cannot be written.
    """
    done = [run for run in runs if run.whole]
    table = pl.DataFrame([row(run) for run in done], infer_schema_length=None)
    write_atomic(out / "results.csv", table.write_csv().encode())
    text = markdown(table, user_tables(done)) + curve_table(table) + absent(runs)
    text += f"\n{told}\n" if told else ""
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
    return f"\nNot in the table, because they failed or have not run yet: {named}.\n"


def row(run: Run) -> dict[str, Any]:
    """One run: what it was, all metrics as fractions, seconds, memory.

    Raises
    ------
    SnowdropError
        If a file of the run is damaged.
    """
    folder = RunFolder(run.folder)
    summary, rounds = folder.read_summary() or {}, folder.read_rounds()
    metrics = {
        f"{split}_{name}": summary.get(split, {}).get(name)
        for split in ("validation", "test")
        for name in metric_names(KS)
    }
    return {
        "data": Path(run.settings.data).name,
        "method": run.chosen.name,
        "kind": run.chosen.kind,
        "twin_of": run.chosen.twin_of,
        "seed": run.seed,
        "task": run.settings.task,
        **metrics,
        "users": summary["tested_users"],
        "federation_users": _federation_users(rounds, run.settings),
        "best_round": summary["best_round"],
        "broke_off": summary.get("broke_off"),
        "diverged": "broke_off" in summary or _diverged(run, rounds),
        "seconds": round(summary["timing"]["total_seconds"], 3),
        "generator_seconds": round(sum(r.get("generator_seconds") or 0.0 for r in rounds), 3),
        "memory_mb": round(summary["memory"]["peak_rss_mb"], 1),
        "nodes": run.settings.nodes,
        "synthetic_users": summary.get("synthetic", {}).get("users", 0),
        **_traffic(run, summary),
        "digest": run.digest,
    }


def _federation_users(rounds: Sequence[Mapping[str, Any]], settings: RunSettings) -> int | None:
    """Users of whom each round draws some; about so many where it does not draw all."""
    drawn = [users for one in rounds if (users := one.get("users")) is not None]
    return round(statistics.fmean(drawn) / settings.share_of_a_round) if drawn else None


def _traffic(run: Run, summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Megabytes to and from a node in the whole training; None of what needs no federation."""
    needed = run.chosen.kind == "trained" and run.settings.server_lr > 0
    wire = summary.get("wire", {}) if needed else {}
    return {
        f"mb_{way}": None if (total := wire.get(f"bytes_{way}")) is None
        else total / run.settings.nodes / 1e6
        for way in ("down", "up")
    }  # fmt: skip


def user_tables(runs: Sequence[Run]) -> dict[str, dict[int, pl.DataFrame]]:
    """``users.parquet`` of each method and seed.

    Raises
    ------
    SnowdropError
        If one is damaged.
    """
    tables: dict[str, dict[int, pl.DataFrame]] = {}
    for run in runs:
        if (users := RunFolder(run.folder).read_users()) is not None:
            tables.setdefault(run.chosen.name, {})[run.seed] = users
    return tables


def comparison_of(table: pl.DataFrame, users: Users) -> Comparison:
    """The methods of ``results.csv`` beside each other.

    Parameters
    ----------
    table : DataFrame
        One row per run.
    users : Mapping[str, Mapping[int, DataFrame]]
        Test users' metrics by method and seed; may be empty.
    """
    entries, task = [], task_of(table)
    for name, kind, twin_of in (
        table.select("method", "kind", pl.col("twin_of").fill_null("")).unique(
            "method", keep="first", maintain_order=True
        )
    ).iter_rows():
        frame = table.filter(pl.col("method") == name)
        test, validation = (
            {m: frame[f"{split}_{m}"].cast(pl.Float64).drop_nulls().to_list()
             for m in shown_metrics(task) if f"{split}_{m}" in frame.columns}
            for split in ("test", "validation")
        )  # fmt: skip
        entries.append(Entry(name, kind, twin_of, test, validation))
    return Comparison(entries, users, task)


def task_of(table: pl.DataFrame) -> str:
    """What the runs of ``results.csv`` ranked: all the same."""
    return str(table["task"][0]) if "task" in table.columns else "cold-items"


def markdown(table: pl.DataFrame, users: Users) -> str:
    """Mean ± standard deviation over seeds on test items; the best bold, the second underlined.

    Parameters
    ----------
    table : DataFrame
        What ``results.csv`` holds.
    users : Mapping[str, Mapping[int, DataFrame]]
        Test users' metrics by method and seed.
    """
    methods = comparison_of(table, users)
    frames = {name: table.filter(pl.col("method") == name) for name in methods.order}
    metrics = shown_metrics(methods.task)
    shown = {m: {name: _rounded(methods.mean(name, m)) for name in frames} for m in metrics}
    behind = {metric: methods.behind(metric) for metric in methods.tested}
    told = [*[methods.ratio_head] * (methods.bar is not None), *[GAIN_HEAD] * methods.has_twins]
    sent = _synthetic(table)
    validated = f"validation {methods.label(BAR_METRIC)}"
    heads = ["", *map(methods.label, metrics), *told, validated, *sent, "s", "MB"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name, frame in frames.items():
        cells = [_label(methods, name, frame)]
        for metric in metrics:
            text = spread(frame[f"test_{metric}"].to_list(), 100)
            own = shown[metric][name]
            if own is not None:
                ahead = sum(v is not None and v > own for v in shown[metric].values())
                text = (f"**{text}**", f"<u>{text}</u>", text)[min(ahead, 2)]
            mark = f"\\{BEHIND}" if name in behind.get(metric, ()) else ""
            cells.append(text + mark)
        cells += _compared(methods, name)
        cells.append(spread(frame[f"validation_{BAR_METRIC}"].to_list(), 100))
        cells += [spread(frame[column].to_list(), 1) for column in sent.values()]
        cells.append(f"{_mean(frame, 'seconds'):.0f}")
        cells.append(f"{_mean(frame, 'memory_mb'):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    words = [
        methods.bar_words(), methods.gain_words(), methods.mark_words().replace("*", "\\*"),
        *divergence(table), *_told(table),
    ]  # fmt: skip
    return "\n".join([
        _about(table, "**") + "; best **bold**, second <u>underlined</u>",
        "",
        *lines,
        "",
        *(f"{line}\n" for line in words if line),
    ])  # fmt: skip


def _synthetic(table: pl.DataFrame) -> dict[str, str]:
    """Columns of what nodes sent, by their heads; none where no node sent synthetic users."""
    if "synthetic_users" not in table.columns or not (table["synthetic_users"] > 0).any():
        return {}
    return {"synthetic users": "synthetic_users", "MB up": "mb_up", "MB down": "mb_down"}


def _told(table: pl.DataFrame) -> list[str]:
    """What the columns of `_synthetic` mean, as sentences."""
    if not _synthetic(table):
        return []
    counts = table["nodes"].drop_nulls().unique().sort().to_list()
    nodes = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return [
        f"Users are shared out over {nodes} nodes, each of which makes synthetic users of its own. "
        "“MB up” and “MB down” are what one node sends and gets in the whole training, with its "
        "validations; a method without a federation needs neither. Seconds are those of all nodes "
        "in one process, with the making of synthetic users."
    ]


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
        "† The training diverged: its numbers overflowed, or its loss ended above that of the "
        f"first round. This happened to {'; '.join(named)}. The best validated round was tested. A "
        "lower item_lr or head_lr may help, or a larger dim where the method pulls item embeddings "
        "towards generated ones."
    ]


def short_table(table: pl.DataFrame) -> ShortTable:
    """What is shown on a terminal.

    Parameters
    ----------
    table : DataFrame
        What ``results.csv`` holds.
    """
    methods = comparison_of(table, {})
    told = [*["÷ best\nlocal rule"] * (methods.bar is not None),
            *["federation\nadds"] * methods.has_twins]  # fmt: skip
    validated = f"validation\n{methods.label(BAR_METRIC)}"
    heads = ["method", *map(methods.label, methods.tested), *told, validated, "s"]
    rows = []
    for name in methods.order:
        frame = table.filter(pl.col("method") == name)
        cells = [spread(frame[f"test_{metric}"].to_list(), 100) for metric in methods.tested]
        cells += _compared(methods, name)
        cells.append(spread(frame[f"validation_{BAR_METRIC}"].to_list(), 100))
        short = "frozen twin" if methods.is_twin(name) else name  # it stands under its method
        seconds = f"{_mean(frame, 'seconds'):.0f}"
        rows.append([_label(methods, name, frame, short), *cells, seconds])
    below = [line for line in (methods.bar_words(), methods.gain_words()) if line]
    return ShortTable(heads, rows, above=[_about(table)], below=below)


def _about(table: pl.DataFrame, strong: str = "") -> str:
    """What a table shows, with ``strong`` around what must be seen."""
    data = ", ".join(table["data"].unique(maintain_order=True).to_list())
    runs = sorted(table.group_by("method").len()["len"].to_list())
    seeds = f"{runs[0]} seeds" if runs[0] > 1 else "one seed"
    if runs[0] < runs[-1]:
        seeds = (
            f"{runs[0]} to {runs[-1]} seeds, {strong}so methods cannot be compared yet: runs are "
            f"missing{strong}"
        )
    means = f"mean ± standard deviation over {seeds}" if runs[-1] > 1 else seeds
    return f"{strong}{data}{strong}: {ranked_words(task_of(table))}, per cent, {means}"


def _compared(methods: Comparison, name: str) -> list[str]:
    """Cells of a method beside the best local rule, and beside its frozen twin."""
    ratio = [methods.ratio_cell(name)] if methods.bar else []
    return [*ratio, methods.gain_cell(name)] if methods.has_twins else ratio


def spread(values: Sequence[float | None], scale: float) -> str:
    """Mean ± standard deviation, the latter only of two values or more."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.fmean(known):.2f}"
    return f"{mean} ± {statistics.stdev(known):.2f}" if len(known) > 1 else mean


def _label(methods: Comparison, name: str, frame: pl.DataFrame, told: str = "") -> str:
    twin = "↳ " if methods.is_twin(name) else ""
    return f"{twin}{told or name}{' †' if frame['diverged'].any() else ''}"


def _rounded(mean: float | None) -> float | None:
    return None if mean is None else round(100 * mean, 2)


def _diverged(run: Run, rounds: Sequence[Mapping[str, Any]]) -> bool:
    """Whether its loss rose; that of a table that stays as it is depends on who was drawn alone."""
    if run.chosen.twin_of and run.settings.fraction < 1:
        return False
    return _rose([each.get("loss") for each in rounds])


def _rose(losses: Sequence[float | None]) -> bool:
    known = [loss for loss in losses if loss is not None]
    return len(known) > 1 and not known[-1] <= known[0]


def _mean(frame: pl.DataFrame, column: str) -> float:
    return float(frame[column].cast(pl.Float64).fill_null(0).mean() or 0.0)  # type: ignore[arg-type]
