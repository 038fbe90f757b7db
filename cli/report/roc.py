"""Curves of attacks that tell members from others."""

from collections.abc import Sequence

import numpy as np

from cli.report.charts import PER_CENT, Figure, Series, line_chart
from client_app.synthesis.attacks import Roc

_POINTS = 40


def roc_figure(curves: Sequence[tuple[str, Roc]], title: str, found: str, caption: str) -> Figure:
    """Shares of members and of others above each threshold, with guessing as a dashed line.

    Parameters
    ----------
    curves : Sequence[tuple[str, Roc]]
        A short name of each attack, and its curve.
    title : str
    found : str
        What the vertical axis counts.
    caption : str
    """
    grid = np.linspace(0, 1, _POINTS + 1)
    lines = []
    for colour, (name, roc) in enumerate(curves):
        places = np.searchsorted(roc.false_alarms, grid, side="right") - 1
        points = [(100 * float(x), float(roc.hits[k])) for x, k in zip(grid, places, strict=True)]
        lines.append(Series(name, points, colour))
    guess = Series("guessing", [(0.0, 0.0), (100.0, 1.0)], None, dashed=True)
    return Figure(
        title,
        line_chart("Curves of the attacks", [*lines, guess], "false alarms in per cent", found),
        f"The dashed line is guessing. {caption}",
        ("False alarms", *(line.label for line in lines)),
        [(f"{lines[0].points[k][0]:.0f} %", *(PER_CENT.value(line.points[k][1]) for line in lines))
         for k in range(0, _POINTS + 1, 4)],
    )  # fmt: skip
