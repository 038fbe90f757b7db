"""Validation metrics and losses over rounds."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from cli.report.charts import COLOURS, Series, Unit
from cli.report.parts.part import Part, line_figure, maker
from cli.report.run import Run
from cli.report.subject import Subject
from common.bar import TRAINED
from common.task import ranked_words
from server_app.run_folder import ROUNDS

PLAIN = Unit(lambda value: f"{value:g}", lambda value: f"{value:.3g}")


def learning_part(subject: Subject) -> Part:
    """Validation metrics, and a run's losses, over rounds, of all that has two or more."""
    part = Part()
    trained = [run for run in subject.runs if run.kind == TRAINED]
    methods = list(dict.fromkeys(run.method for run in trained))
    order = {method: k for k, method in enumerate(subject.colours)}
    methods.sort(key=lambda m: order.get(m, len(order)))
    if subject.bench:
        for metric in ("recall@20", "ndcg@20"):
            lines = [
                Series(m, curve(subject.runs_of(m), f"validation_{metric}"),
                       subject.colours.get(m))
                for m in methods
            ]  # fmt: skip
            _add_curves(part, lines, metric, subject)
    else:
        lines = [
            Series(
                subject.words(f"recall@{k}"), curve(subject.runs, f"validation_recall@{k}"), place
            )
            for place, k in enumerate((20, 50, 100))
        ]
        _add_curves(part, lines, "recall@20", subject)
        losses = [
            Series("users", curve(subject.runs, "loss"), 0),
            Series("generator", curve(subject.runs, "generator_loss"), 1),
        ]
        if losses := _with_a_course(losses):
            part.figures.append(
                line_figure(
                    "Training loss",
                    losses,
                    "loss",
                    _loss_words(losses, subject),
                    PLAIN,
                )
            )
        spent = Series("all rounds so far", curve(subject.runs, "epsilon_total"), 0)
        if _with_a_course([spent]):
            part.figures.append(
                line_figure(
                    "ε over rounds",
                    [spent],
                    "ε",
                    f"What the rounds have spent of a user's privacy, {subject.where}.",
                    PLAIN,
                )
            )
    if not part.figures and not any(run.rounds for run in trained):
        part.lack("Curves over rounds", maker(subject), ROUNDS)
    return part


def _with_a_course(lines: Sequence[Series]) -> list[Series]:
    """The lines that have two points or more; one alone shows no course."""
    return [line for line in lines if len(line.points) > 1]


def _loss_words(losses: Sequence[Series], subject: Subject) -> str:
    what = {"users": "the users' local training", "generator": "the generator"}
    told = " and of ".join(what[line.label] for line in losses)
    two = " The two are on the same axis but measure different things." * (len(losses) > 1)
    return f"Mean loss of {told}, {subject.where}.{two}"


def _add_curves(
    part: Part,
    lines: Sequence[Series],
    metric: str,
    subject: Subject,
) -> None:
    lines = _with_a_course(lines)
    if not lines:
        return
    rounds = [x for line in lines for x, _ in line.points]
    bar = subject.by_method.get(subject.bar, [])
    level = [r.validation[metric] for r in bar if metric in r.validation]
    note = ""
    if level and subject.bar != subject.main:
        ends = [(min(rounds), fmean(level)), (max(rounds), fmean(level))]
        label = "best local rule" if subject.bench else "best rule @20"
        lines = [*lines, Series(label, ends, COLOURS - 1, dashed=True)]
        note = (
            f" The dashed line is the {subject.words(metric)} of {subject.bar}, the best local "
            "rule, which has no rounds."
        )
    single = subject.bench
    what = subject.words(metric) if single else subject.words("recall@").rstrip("@")
    title = f"{what} over rounds"
    part.figures.append(
        line_figure(
            title,
            lines,
            what,
            f"On {ranked_words(subject.task, 'validation')} of {subject.where}, "
            f"at every round that was validated.{note}",
        )
    )


def curve(runs: Sequence[Run], column: str) -> list[tuple[float, float]]:
    """A column of ``rounds.csv`` as the mean over runs, as far as all that have it go."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for row in run.rounds:
            value = row.get(column)
            if isinstance(value, int | float) and np.isfinite(value):
                values.setdefault(float(row["round"]), []).append(float(value))
    most = max(map(len, values.values()), default=0)
    return [(k, fmean(found)) for k, found in sorted(values.items()) if len(found) == most]
