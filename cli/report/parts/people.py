"""Recall by groups of users."""

from itertools import pairwise

import numpy as np
import polars as pl

from cli.report.charts import Figure, Series, line_chart
from cli.report.parts.part import BENCH, Part, notes
from cli.report.subject import Subject
from server_app.run_folder import USERS

GROUPS = 5
_COUNTED_HERE = (
    " It is counted on this machine, which has the data of all simulated users: nodes send no such "
    "number, and no noise is on it."
)


def people_part(subject: Subject) -> Part:
    """Recall by users' history and by how similar their items are to warm ones."""
    part = Part()
    frames = [(run, run.users) for run in subject.runs]
    for column, title, x_label, what in (
        ("history", "Recall by length of history", "warm items in a user's history",
         "how many warm items a user has"),
        ("similarity", "Recall by similarity to warm items",
         "cosine to the nearest warm items",
         "how similar the user's test items are to the nearest warm items"),
    ):  # fmt: skip
        having = [
            (run, frame)
            for run, frame in frames
            if frame is not None and column in frame.columns and _recall_column(frame)
        ]
        if not having:
            part.lack(f"Recall by {what}", BENCH, USERS)
            continue
        edges = _edges(pl.concat([frame[column].cast(pl.Float64) for _, frame in having]))
        whole = all(frame[column].dtype.is_integer() for _, frame in having)
        names = _bin_names(edges, whole)
        metric = _recall_column(having[0][1]) or ""
        series = []
        order = {method: k for k, method in enumerate(subject.ranking)}
        methods = sorted(
            {run.method for run, _ in having} - set(subject.floors),
            key=lambda m: order.get(m, len(order)),
        )
        for method in methods:
            groups = [
                _by_group(frame, column, metric, edges)
                for run, frame in having
                if run.method == method and metric in frame.columns
            ]
            if groups:
                mean = np.nanmean([g[0] for g in groups], axis=0)
                error = np.nanmean([g[1] for g in groups], axis=0)
                points = [(float(k), float(v)) for k, v in enumerate(mean) if np.isfinite(v)]
                spread = [float(error[int(k)]) for k, _ in points]
                only = len(methods) == 1
                series.append(
                    Series(method, points, 0 if only else subject.colours.get(method), spread)
                )
        if not series:
            part.lack(f"Recall by {what}, of a method that is not random", BENCH)
            continue
        counts = _by_group(having[0][1], column, metric, edges)[2]
        kept = having[0][0].users_are_kept_lists
        told = (
            "the share of a user's cold items, validation and test, that are in the list that the "
            "node keeps"
            if kept
            else subject.ranked.replace("cold ", "")
        )
        part.figures.append(
            Figure(
                title,
                line_chart(
                    f"{subject.words(metric)} by {what}",
                    series,
                    x_label,
                    subject.words(metric),
                    x_names=names,
                ),
                f"{subject.words(metric)} ({told}) of {subject.where}, users in groups of about "
                f"the same size ({min(counts):,} to {max(counts):,}); whiskers are a standard "
                f"error over users.{_COUNTED_HERE if kept else ''}{notes(series)}",
                ("Group", "Users", *(line.label for line in series)),
                [
                    (
                        name,
                        f"{counts[k]:,}",
                        *(
                            f"{100 * dict(line.points).get(float(k), float('nan')):.2f} %"
                            for line in series
                        ),
                    )
                    for k, name in enumerate(names)
                ],
            )
        )
    return part


def _recall_column(frame: pl.DataFrame) -> str | None:
    names = [name for name in frame.columns if name.startswith("recall@")]
    return "recall@20" if "recall@20" in names else next(iter(names), None)


def _edges(values: pl.Series) -> np.ndarray:
    """Bounds of groups of about the same size; a group is (lower, upper], the first [lower, …]."""
    numbers = values.drop_nulls().drop_nans().to_numpy()
    return np.unique(np.quantile(numbers, np.linspace(0, 1, GROUPS + 1), method="nearest"))


def _bin_names(edges: np.ndarray, whole: bool) -> list[str]:
    if len(edges) == 1:
        return [f"{edges[0]:g}" if whole else f"{edges[0]:.2f}"]
    if not whole:
        return [f"{a:.2f}–{b:.2f}".replace("0.", ".") for a, b in pairwise(edges)]
    lows = [int(edges[0]), *(int(edge) + 1 for edge in edges[1:-1])]
    highs = [int(edge) for edge in edges[1:]]
    return [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(lows, highs, strict=True)]


def _by_group(
    frame: pl.DataFrame, column: str, metric: str, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Mean, standard error and users of each group."""
    usable = frame.select(pl.col(column, metric).cast(pl.Float64)).drop_nulls().drop_nans()
    groups = max(1, len(edges) - 1)
    place = np.searchsorted(edges[1:-1], usable[column].to_numpy(), side="left")
    values = usable[metric].to_numpy()
    parts = [values[place == k] for k in range(groups)]
    return (
        np.array([part.mean() if len(part) else np.nan for part in parts]),
        np.array([part.std(ddof=1) / len(part) ** 0.5 if len(part) > 1 else 0.0 for part in parts]),
        [len(part) for part in parts],
    )
