"""The tables of a comparison of synthesizers, shaped as the paper's tables 3 and 4."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from cli.bench_synthetic.names import METRICS, POPULAR, Mode, Protocol
from cli.bench_synthetic.protocol import World
from cli.bench_synthetic.recommenders import recommender
from cli.bench_synthetic.runs import Cell, Plan
from cli.comparison import ABOVE, BELOW
from cli.short_table import ShortTable
from common.durable import write_atomic

TABLES: dict[Mode, str] = {
    "augment": "Synthetic users beside real ones (the paper's table 3)",
    "replace": "Synthetic users in place of real ones (the paper's table 4)",
}
WORDS: dict[Protocol, str] = {
    "published": (
        "As the published code has it: items that a reported user rated low count as items to be "
        "found, and the recommenders have the slips of the code."
    ),
    "likes": "Likes alone: low ratings count for nothing, and all methods are treated alike.",
}
HEADLINE = ("recall@10", "ndcg@10")
_COSTS = ("likes_per_user", "train_seconds", "sample_seconds", "memory_mb")


@dataclass
class Line:
    """One row of a table.

    Parameters
    ----------
    recommender, method : str
        As they are shown.
    values : dict[str, list[float]]
        By metric, what each run found.
    reason : str
        Why it could not be made; empty where it was.
    """

    recommender: str
    method: str
    values: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""

    def mean(self, metric: str) -> float | None:
        """Over runs."""
        found = self.values.get(metric)
        return statistics.fmean(found) if found else None

    def deviation(self, metric: str) -> float:
        """Over runs; 0 where there is one."""
        found = self.values.get(metric, [])
        return statistics.stdev(found) if len(found) > 1 else 0.0

    def text(self, metric: str) -> str:
        """Mean ± deviation, to four places."""
        mean = self.mean(metric)
        if mean is None:
            return "–"
        spread = f" ± {self.deviation(metric):.4f}" if len(self.values[metric]) > 1 else ""
        return f"{mean:.4f}{spread}"

    def mark(self, other: "Line", metric: str) -> str:
        """▲ or ▼ where it is above or below another by more than their deviations together."""
        own, base = self.mean(metric), other.mean(metric)
        if self is other or own is None or base is None or len(self.values[metric]) < 2:
            return ""
        gap = own - base
        noise = math.hypot(self.deviation(metric), other.deviation(metric))
        return "" if abs(gap) <= noise else ABOVE if gap > 0 else BELOW


@dataclass(frozen=True)
class Group:
    """The rows of one recommender in a table; the first one is that of real users."""

    recommender: str
    lines: list[Line]

    def place(self, line: Line, metric: str) -> int:
        """How many rows are better, by what is shown."""
        own = line.mean(metric)
        if own is None:
            return len(self.lines)
        means = [each.mean(metric) for each in self.lines]
        return sum(mean is not None and round(mean, 4) > round(own, 4) for mean in means)


def write_results(
    plan: Plan,
    cells: Sequence[Cell],
    world: World,
    out: Path,
    failures: Mapping[Path, str],
    told: str = "",
) -> pl.DataFrame:
    """Write ``results.csv``, ``results.md`` and ``report.html`` of the cells that are whole.

    Parameters
    ----------
    plan : Plan
    cells : Sequence[Cell]
        All cells of it.
    world : World
    out : Path
    failures : Mapping[Path, str]
        Files of cells that could not be made, and why.
    told : str
        A paragraph for the end of ``results.md``.

    Returns
    -------
    DataFrame
        What ``results.csv`` holds: one row per cell.

    Raises
    ------
    SnowdropError
        If a cell's file is damaged, or a table cannot be written.
    """
    from cli.bench_synthetic.page import render

    table = pl.DataFrame(
        [_record(plan, cell, failures) for cell in cells], infer_schema_length=None
    )
    write_atomic(out / "results.csv", table.write_csv().encode())
    write_atomic(out / "results.md", markdown(plan, table, world, told).encode())
    page = render(plan, table, world, told, out.resolve().name, f"{datetime.now():%-d %B %Y}")
    write_atomic(out / "report.html", page.encode())
    return table


def _record(plan: Plan, cell: Cell, failures: Mapping[Path, str]) -> dict[str, Any]:
    found = cell.read() if cell.whole else {}
    metrics = found.get("metrics", {})
    return {
        "data": plan.data,
        "protocol": cell.protocol,
        "mode": cell.mode,
        "recommender": cell.recommender,
        "method": cell.row.name,
        "run": cell.run,
        **{name: metrics.get(name) for name in METRICS},
        "seconds": found.get("seconds"),
        **{name: found.get(name) for name in (*_COSTS, "epsilon")},
        "digest": cell.sampling.digest,
        "reason": "" if found else failures.get(cell.path, "not made yet"),
    }


def groups_of(plan: Plan, table: pl.DataFrame, protocol: str, mode: str) -> list[Group]:
    """The rows of one of the paper's tables, recommender by recommender, and the floor last.

    Parameters
    ----------
    plan : Plan
    table : DataFrame
        What ``results.csv`` holds.
    protocol, mode : str
    """
    of = table.filter((pl.col("protocol") == protocol) & pl.col("mode").is_in([mode, "original"]))
    names = {row.name: row.title for row in plan.rows}
    found = []
    for name in (*plan.recommenders, POPULAR):
        frame = of.filter(pl.col("recommender") == name)
        title = recommender(name).title
        lines = [
            _line(title, names[method], frame.filter(pl.col("method") == method))
            for method in frame["method"].unique(maintain_order=True)
        ]
        found.append(Group(title, lines))
    return found


def _line(recommender: str, method: str, frame: pl.DataFrame) -> Line:
    values = {name: frame[name].cast(pl.Float64).drop_nulls().to_list() for name in METRICS}
    reasons = [reason for reason in frame["reason"].to_list() if reason]
    missing = reasons[0] if reasons and not any(values.values()) else ""
    return Line(recommender, method, {k: v for k, v in values.items() if v}, missing)


def markdown(plan: Plan, table: pl.DataFrame, world: World, told: str = "") -> str:
    """Tables of each protocol and mode, and what the synthesizers cost.

    Parameters
    ----------
    plan : Plan
    table : DataFrame
        What ``results.csv`` holds.
    world : World
    told : str
        A paragraph for the end.
    """
    lines = [f"# Synthetic users on {plan.data}", "", *_wrapped(about(plan, table, world))]
    for protocol in plan.protocols:
        lines += [f"## {protocol}", "", WORDS[protocol], ""]
        for mode in plan.modes:
            lines += [f"### {TABLES[mode]}", ""]
            lines += _table(groups_of(plan, table, protocol, mode))
    costs = cost_rows(plan, table)
    if costs:
        lines += ["## The synthetic users", "", *_rows(COST_HEAD, costs), ""]
    return "\n".join([*lines, *_wrapped([told] if told else [])])


def about(plan: Plan, table: pl.DataFrame, world: World) -> list[str]:
    """What a reader of the tables must know, as paragraphs."""
    runs = table.filter((pl.col("recommender") != POPULAR) & (pl.col("reason") == ""))
    each = runs.group_by("protocol", "recommender", "mode", "method").len()["len"].to_list()
    made = f"{plan.runs} runs" if plan.runs > 1 else "one run"
    if each and min(each) < plan.runs:
        made = (
            f"{min(each)} to {max(each)} runs, **so methods cannot be compared yet: cells "
            "are missing**"
        )
    likes = world.train.likes
    told = [
        f"{len(world.train.users):,} users to train on with {likes.nnz / likes.shape[0]:.1f} likes "
        f"each, {len(world.reported.users):,} reported users, {world.items:,} items; "
        f"{plan.users:,} synthetic users. Mean ± standard deviation over {made}, each with a "
        "training, a sample and a recommender of its own on the same split; best **bold**, second "
        "<u>underlined</u> among the rows of a recommender.",
    ]
    if plan.runs > 1:
        told.append(
            f"{ABOVE} ({BELOW}) is above (below) real users by more than one standard deviation "
            "of the difference, √(s² + s₀²) over runs. It says nothing of other users: all runs "
            "report the same ones."
        )
    return told


def _wrapped(paragraphs: Sequence[str]) -> list[str]:
    return [line for paragraph in paragraphs for line in (paragraph, "")]


def _table(groups: Sequence[Group]) -> list[str]:
    lines = _rows(["recommender", "method", *METRICS], [])
    for group in groups:
        for line in group.lines:
            cells = [line.recommender, line.method]
            if line.reason:
                cells += [f"– ({line.reason})".replace("|", "\\|"), *[""] * (len(METRICS) - 1)]
            else:
                cells += [_cell(group, line, metric) for metric in METRICS]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(group: Group, line: Line, metric: str) -> str:
    text, mark = line.text(metric), line.mark(group.lines[0], metric)
    if len(group.lines) > 1 and text != "–":
        text = (f"**{text}**", f"<u>{text}</u>", text)[min(group.place(line, metric), 2)]
    return f"{text} {mark}".strip()


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return [*lines, *(f"| {' | '.join(cells)} |" for cells in rows)]


COST_HEAD = ("method", "used by", "likes per user", "training, s", "sampling, s", "memory, MB")


def cost_rows(plan: Plan, table: pl.DataFrame) -> list[list[str]]:
    """What each synthesizer's users are like, and what they cost: means over its trainings."""
    found = table.filter(pl.col("train_seconds").is_not_null()).unique(
        ["method", "run", "digest"], keep="first", maintain_order=True
    )
    rows = []
    for method in found["method"].unique(maintain_order=True):
        frame = found.filter(pl.col("method") == method)
        for digest in frame["digest"].unique(maintain_order=True):
            own = frame.filter(pl.col("digest") == digest)
            use = table.filter((pl.col("method") == method) & (pl.col("digest") == digest))
            named = [recommender(name).title for name in use["recommender"].unique().sort()]
            likes, trained, sampled, memory = (
                statistics.fmean(own[name].to_list()) for name in _COSTS
            )
            rows.append(
                [method, ", ".join(named), f"{likes:.1f}", f"{trained:.1f}", f"{sampled:.1f}",
                 f"{memory:.0f}"]
            )  # fmt: skip
    return rows


def short_table(plan: Plan, table: pl.DataFrame) -> ShortTable:
    """What is shown on a terminal: Recall@10 and NDCG@10.

    Parameters
    ----------
    plan : Plan
    table : DataFrame
        What ``results.csv`` holds.
    """
    told = [f"{mode}\n{metric}" for mode in plan.modes for metric in HEADLINE]
    rows = []
    for protocol in plan.protocols:
        by_mode = [groups_of(plan, table, protocol, mode) for mode in plan.modes]
        for same in zip(*by_mode, strict=True):
            for alike in zip(*(group.lines for group in same), strict=True):
                cells = [line.text(metric) for line in alike for metric in HEADLINE]
                rows.append([protocol, alike[0].recommender, alike[0].method, *cells])
    return ShortTable(["protocol", "recommender", "method", *told], rows, names=3)
