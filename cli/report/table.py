"""The numbers at the head of a chapter, and its result table."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from cli.comparison import ABOVE, BEHIND, BELOW, GAIN_HEAD
from cli.report.subject import Subject
from common.bar import BAR_METRIC
from common.task import shown_metrics


@dataclass
class Cell:
    """One number of the table; ``sort`` is what the best of a column is found by."""

    text: str
    sort: float | None = None
    spread: str = ""
    kind: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """One method's row; ``twin`` where it is the frozen twin of the row above."""

    method: str
    twin: bool
    cells: list[Cell]


def headline(subject: Subject) -> list[tuple[str, str, str]]:
    """Number, what it is, and a few words more."""
    main = subject.main
    if main not in subject.by_method:
        return []
    value = subject.mean(main, BAR_METRIC)
    what = f"{subject.words(BAR_METRIC)}, {main}"
    lines = [(f"{100 * value:.1f} %", what, f"on {subject.ranked}")]
    methods = subject.comparison
    ratio, gain = methods.ratio(main), methods.gain(main)
    noise = {ABOVE: "more than noise", BELOW: "more than noise", "": "within noise"}

    def certain(mark: str) -> str:
        return f"; the difference is {noise[mark]}" if methods.is_tested else ""

    if ratio is not None and subject.bar != main:
        lines.append(
            (
                f"{ratio:.2f} ×",
                f"the best local rule, {subject.bar}",
                f"which needs no federation{certain(methods.ratio_mark(main))}",
            )
        )
    if gain is not None:
        lines.append(
            (
                f"{gain:+.1f} points",
                "added by the federation",
                f"compared with its frozen twin{certain(methods.gain_mark(main))}",
            )
        )
    floor = next((name for name in subject.floors if name != main), "")
    if floor and (level := subject.mean(floor, BAR_METRIC)):
        lines.append(
            (f"{value / level:.0f} ×", "random ranking", f"which reaches {100 * level:.1f} %")
        )
    return lines


def result_table(subject: Subject) -> tuple[list[str], list[Line]]:
    """Heads of the columns, and one line per method with each frozen twin under its method."""
    if not subject.by_method:
        return [], []
    methods = subject.comparison
    present = {name for group in subject.by_method.values() for r in group for name in r.test}
    names = [name for name in shown_metrics(subject.task) if name in present]
    gains = methods.has_twins
    head = [subject.words(name) for name in names]
    head += [f"{subject.words(BAR_METRIC)} ÷ best local rule"] if methods.bar else []
    head += [GAIN_HEAD.capitalize()] if gains else []
    head += ["Runs"] if subject.bench else []
    lines = []
    for method in methods.order:
        group = subject.by_method[method]
        cells = [_cell([100 * r.test[name] for r in group if name in r.test]) for name in names]
        if methods.bar:
            cells.append(Cell(methods.ratio_cell(method)))
        if gains:
            cells.append(Cell(methods.gain_cell(method)))
        if subject.bench:
            cells.append(Cell(str(len(group))))
        lines.append(Line(method, methods.is_twin(method), cells))
    behind = {name: methods.behind(name) for name in methods.tested}
    for column, name in enumerate(names):
        _mark({line.method: line.cells[column] for line in lines}, behind.get(name, set()))
    return head, lines


def _cell(values: list[float]) -> Cell:
    if not values:
        return Cell("–")
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return Cell(f"{fmean(values):.2f}", round(fmean(values), 2), spread)


def _mark(column: Mapping[str, Cell], behind: set[str]) -> None:
    """Mark a column's best and second, and what is behind the best by more than noise."""
    shown = [cell.sort for cell in column.values() if cell.sort is not None]
    for method, cell in column.items():
        if cell.sort is not None and len(column) > 1:
            own = cell.sort
            cell.kind = ("best", "second", "")[min(sum(other > own for other in shown), 2)]
        cell.mark = BEHIND if method in behind else ""
