"""A part of the report, and what all parts share: units, words, figures of lines and values."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.report.charts import (
    PER_CENT,
    Figure,
    Row,
    Series,
    Unit,
    from_zero,
    line_chart,
    value_chart,
)
from cli.report.subject import Subject

BENCH = "snowdrop bench DATA_DIR --out DIR"


def maker(subject: Subject) -> str:
    """The command that makes what is missing: a run that has begun goes on."""
    if subject.bench:
        return BENCH
    begun = any(run.folder.holds_training for run in subject.runs)
    return f"snowdrop simulate DATA_DIR --run-dir DIR{' --set resume=true' if begun else ''}"


@dataclass(frozen=True)
class Lack:
    """What is left out, the command that makes it, and the files that would hold it.

    Where no command could make it, ``reason`` says why.
    """

    what: str
    command: str
    files: tuple[str, ...] = ()
    reason: str = ""


@dataclass
class Part:
    """A section: its charts, and what could not be shown because its input is missing."""

    figures: list[Figure] = field(default_factory=list)
    missing: list[Lack] = field(default_factory=list)

    def lack(self, what: str, command: str, *files: str) -> None:
        """Say what is left out, which command makes it, and which files would hold it."""
        self.missing.append(Lack(what, command, files))


def line_figure(
    title: str,
    lines: Sequence[Series],
    y_label: str,
    caption: str,
    unit: Unit = PER_CENT,
) -> Figure:
    """Lines over rounds with their numbers, at most 24 rounds of them."""
    rounds = sorted({x for line in lines for x, _ in line.points})
    if len(rounds) > 24:
        step = -(-len(rounds) // 24)
        rounds = [*rounds[:-1:step], rounds[-1]]
    values = [dict(line.points) for line in lines]
    rows = [
        [f"{x:g}", *(unit.value(value[x]) if x in value else "–" for value in values)]
        for x in rounds
    ]
    return Figure(
        title,
        line_chart(f"{title}: {', '.join(line.label for line in lines)}", lines, "round", y_label,
                   unit),
        caption + notes(lines),
        ["Round", *(line.label for line in lines)],
        rows,
    )  # fmt: skip


def notes(lines: Sequence[Series]) -> str:
    """What a reader of lines must know beside the caption."""
    told = "" if from_zero(lines) else " The vertical axis does not begin at zero."
    if any(line.colour is None for line in lines):
        told += " Grey lines are other methods."
    return told


def value_figure(
    title: str,
    rows: Sequence[Row],
    axis: str,
    unit: Unit,
    caption: str,
) -> Figure:
    """Bars from zero with their numbers."""
    return Figure(
        title,
        value_chart(title, rows, axis, unit, bars=True),
        caption,
        ("", axis),
        [(row.label, unit.value(row.value)) for row in rows],
    )
