"""The page of a comparison of synthesizers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from cli.bench_synthetic.names import METRICS
from cli.bench_synthetic.protocol import World
from cli.bench_synthetic.results import (
    COST_HEAD,
    HEADLINE,
    TABLES,
    WORDS,
    Group,
    Line,
    about,
    cost_rows,
    groups_of,
)
from cli.bench_synthetic.runs import Plan
from cli.report.charts import Figure, Row, Unit, value_chart
from cli.report.table import Cell
from cli.report.template import render_template
from common.task import metric_words

FRACTION = Unit(lambda value: f"{value:.3g}", lambda value: f"{value:.4f}")
"""Of metrics, as the paper writes them."""


@dataclass(frozen=True)
class Shown:
    """A row of a table: its cells, or why there are none."""

    name: str
    cells: Sequence[Cell]
    reason: str = ""


@dataclass(frozen=True)
class Grid:
    """A table."""

    title: str
    head: Sequence[str]
    lines: Sequence[Shown]


@dataclass
class Section:
    """A part of the page: words, tables, figures."""

    title: str
    words: Sequence[str] = ()
    tables: Sequence[Grid] = ()
    figures: Sequence[Figure] = ()
    missing: Sequence[tuple[str, str]] = field(default=())


def render(plan: Plan, table: pl.DataFrame, world: World, told: str, folder: str, made: str) -> str:
    """The page as one HTML file that loads nothing.

    Parameters
    ----------
    plan : Plan
    table : DataFrame
        What ``results.csv`` holds.
    world : World
    told : str
        What the command gave to all methods, as a sentence.
    folder : str
        Name of the comparison's folder.
    made : str
        Today's date, as shown.
    """
    sections = [_protocol(plan, table, protocol) for protocol in plan.protocols]
    if costs := cost_rows(plan, table):
        lines = [Shown(row[0], [Cell(text) for text in row[1:]]) for row in costs]
        sections.append(Section("The synthetic users", (), [Grid("", COST_HEAD, lines)]))
    words = [*(plain(text) for text in about(plan, table, world)), *([plain(told)] if told else [])]
    return render_template(
        "page.html.j2",
        Path(__file__).parent,
        data=plan.data,
        folder=folder,
        made=made,
        facts=_facts(plan, world),
        sections=[*sections, Section("How to read the tables", words)],
    )


def _facts(plan: Plan, world: World) -> list[tuple[str, str]]:
    likes = world.train.likes
    return [
        ("Users to train on", f"{len(world.train.users):,}"),
        ("Their likes", f"{likes.nnz:,}"),
        ("Items", f"{world.items:,}"),
        ("Reported users", f"{len(world.reported.users):,}"),
        ("Synthetic users", f"{plan.users:,}"),
        ("Runs", str(plan.runs)),
    ]


def _protocol(plan: Plan, table: pl.DataFrame, protocol: str) -> Section:
    grids, figures = [], []
    for mode in plan.modes:
        groups = groups_of(plan, table, protocol, mode)
        head = ["", *(metric_words(name) for name in METRICS)]
        lines = [_shown(group, line) for group in groups for line in group.lines]
        grids.append(Grid(TABLES[mode], head, lines))
        figures += [figure for group in groups[:-1] if (figure := _figure(group, groups[-1], mode))]
    words = next(text for name, text in WORDS.items() if name == protocol)
    titles = {"published": "As published", "likes": "Likes alone"}
    return Section(titles[protocol], [words], grids, figures)


def _shown(group: Group, line: Line) -> Shown:
    name = f"{line.recommender} · {line.method}"
    if line.reason:
        return Shown(name, (), line.reason)
    cells = []
    for metric in METRICS:
        mean, _, spread = line.text(metric).partition(" ± ")
        cell = Cell(mean, line.mean(metric), f" ± {spread}" if spread else "")
        if len(group.lines) > 1 and mean != "–":
            cell.kind = ("best", "second", "")[min(group.place(line, metric), 2)]
        cell.mark = line.mark(group.lines[0], metric)
        cells.append(cell)
    return Shown(name, cells)


def _figure(group: Group, floor: Group, mode: str) -> Figure | None:
    """Recall@10 of all rows of a recommender, with each run's."""
    metric = HEADLINE[0]
    rows = [
        Row(line.method, mean, line.values[metric], 0, line is group.lines[0])
        for line in group.lines
        if (mean := line.mean(metric)) is not None
    ]
    if len(rows) < 2:
        return None
    rows += [
        Row("most popular", mean, (), None)
        for line in floor.lines
        if (mean := line.mean(metric)) is not None
    ]
    words = {"augment": "real and synthetic users", "replace": "synthetic users alone"}
    title = f"{group.recommender} on {words[mode]}"
    return Figure(
        title,
        value_chart(title, rows, metric_words(metric), FRACTION),
        "Large marks are means, small ones single runs; real users are in bold.",
        ("", metric_words(metric)),
        [(row.label, FRACTION.value(row.value)) for row in rows],
    )


def plain(text: str) -> str:
    """Words of a Markdown paragraph, without its marks."""
    for mark in ("**", "<u>", "</u>", "`"):
        text = text.replace(mark, "")
    return text
