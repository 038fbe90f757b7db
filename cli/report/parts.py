"""The charts of the report, part by part, and what a part lacks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from cli.report.charts import (
    COLOURS,
    MAP,
    PER_CENT,
    Figure,
    Interval,
    Row,
    Series,
    Unit,
    embedding_map,
    from_zero,
    interval_chart,
    line_chart,
    value_chart,
)
from cli.report.distance import Misalignment, misalignment
from cli.report.source import PROFILE, Points, Run
from cli.report.subject import FLOOR, Subject

GROUPS = 5
MAP_POINTS = 500
MAP_ROUNDS = 9
BENCH = "snowdrop bench DATA_DIR --out DIR"
SIMULATE = "snowdrop simulate DATA_DIR --run-dir DIR"


def _seconds(value: float) -> str:
    if value >= 5400:
        return f"{value / 3600:.3g} h"
    return f"{value / 60:.3g} min" if value >= 600 else f"{value:.3g} s"


def _megabytes(value: float) -> str:
    return f"{value / 1000:.3g} GB" if value >= 1000 else f"{value:.3g} MB"


PLAIN = Unit(lambda value: f"{value:g}", lambda value: f"{value:.3g}")
SHARE = Unit(lambda value: f"{value:g}", lambda value: f"{value:.2f}")
TIME = Unit(_seconds, _seconds)
MEMORY = Unit(_megabytes, _megabytes)


@dataclass
class Part:
    """A section: its charts, and what could not be shown because its input is missing."""

    figures: list[Figure] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    def lack(self, what: str, command: str) -> None:
        """Say what is left out, and which command makes it."""
        self.missing.append((what, command))


@dataclass
class MapPart:
    """The map of embeddings: what the slider needs, and what stands there without it."""

    methods: list[str]
    rounds: list[int]
    shown: Markup
    prints: list[tuple[int, Markup]]
    data: dict[str, Any]
    counts: tuple[int, int]


def results_part(subject: Subject) -> Part:
    """Recall and NDCG on test items, by method."""
    part = Part()
    if not subject.by_method:
        part.lack("Test results, which a run has at its end", BENCH if subject.bench else SIMULATE)
        return part
    for name in (subject.metric, subject.metric.replace("recall", "ndcg")):
        rows = [
            Row(
                method,
                subject.mean(method, name),
                [r.test[name] for r in subject.by_method[method] if name in r.test],
                subject.colours.get(method),
                method == subject.main,
            )
            for method in sorted(subject.by_method, key=lambda m: -subject.mean(m, name))
            if any(name in r.test for r in subject.by_method[method])
        ]
        if not rows:
            continue
        title = f"{metric_words(name)} on cold test items"
        several = " Small strokes are single seeds." if len(subject.seeds) > 1 else ""
        part.figures.append(
            Figure(
                title,
                value_chart(f"{title}, by method", rows, metric_words(name)),
                f"Test items of {subject.where}.{several}",
                ("Method", metric_words(name)),
                [(row.label, f"{100 * row.value:.2f} %") for row in rows],
            )
        )
    return part


def learning_part(subject: Subject) -> Part:
    """Validation metrics, and a run's losses, over rounds."""
    part = Part()
    methods = list(
        dict.fromkeys(r.method for r in subject.runs if r.method not in (PROFILE, FLOOR))
    )
    order = {method: k for k, method in enumerate(subject.colours)}
    methods.sort(key=lambda m: order.get(m, len(order)))
    if subject.bench:
        for metric in ("recall@20", "ndcg@20"):
            lines = [
                Series(m, _curve(subject.runs_of(m), f"validation_{metric}"),
                       subject.colours.get(m))
                for m in methods
            ]  # fmt: skip
            _add_curves(part, lines, metric, subject)
    else:
        lines = [
            Series(f"Recall@{k}", _curve(subject.runs, f"validation_recall@{k}"), place)
            for place, k in enumerate((20, 50, 100))
        ]
        _add_curves(part, lines, "recall@20", subject)
        losses = [
            Series("users", _curve(subject.runs, "loss"), 0),
            Series("generator", _curve(subject.runs, "generator_loss"), 1),
        ]
        losses = [line for line in losses if line.points]
        if losses:
            part.figures.append(
                _line_figure(
                    "Training loss",
                    losses,
                    "loss",
                    "Mean loss of the users' local training and of the generator, "
                    f"{subject.where}. The two are on the same axis but measure different things.",
                    PLAIN,
                )
            )
    if not part.figures:
        part.lack("Curves over rounds (rounds.csv)", BENCH if subject.bench else SIMULATE)
    return part


def map_part(subject: Subject) -> MapPart | None:
    """Points of one run of each method that has snapshots, the main method first."""
    order = [subject.main, *(m for m in subject.ranking if m != subject.main)]
    found: dict[str, Points] = {}
    for method in order:
        run = next((r for r in subject.runs_of(method) if r.points), None)
        if run is not None and len(found) < COLOURS:
            found[method] = run.points
    if not found:
        return None
    data = {method: _map_data(points) for method, points in found.items()}
    first = next(iter(data))
    shown = data[first]
    rounds = shown["rounds"]
    last = len(rounds) - 1

    def drawn(k: int, kind: str = "") -> Markup:
        warm, cold = (_pairs(shown[name][k]) for name in ("warm", "cold"))
        label = (
            f"{len(warm)} warm and {len(cold)} generated cold items of {first} in two principal "
            f"components at round {rounds[k]}"
        )
        return embedding_map(label, warm, cold, kind)

    picks = sorted({0, last // 2, last})
    return MapPart(
        methods=list(data),
        rounds=rounds,
        shown=drawn(last),
        prints=[(rounds[k], drawn(k, "small")) for k in picks],
        data={"size": MAP, "methods": data},
        counts=(len(shown["warm"][last]) // 2, len(shown["cold"][last]) // 2),
    )


def distance_part(subject: Subject) -> Part:
    """Fréchet distances and distances to the nearest warm item, by method."""
    part = Part()
    measured: dict[str, list[Misalignment]] = {}
    for run in subject.runs:
        both = run.embeddings
        if both is not None and (found := misalignment(*both)) is not None:
            measured.setdefault(run.method, []).append(found)
    if not measured:
        part.lack("Distances of embeddings", BENCH if subject.bench else SIMULATE)
        return part
    methods = sorted(measured, key=lambda m: fmean(x.frechet_generated for x in measured[m]))
    everyone = [x for group in measured.values() for x in group]
    items = min(x.items for x in everyone)
    rows = [
        Row("held-out warm items", fmean(x.frechet_held_out for x in everyone), (), None),
        *(
            Row(
                m,
                fmean(x.frechet_generated for x in measured[m]),
                [x.frechet_generated for x in measured[m]],
                subject.colours.get(m),
                m == subject.main,
            )
            for m in methods
        ),
    ]
    part.figures.append(
        Figure(
            "Fréchet distance to warm embeddings",
            value_chart(
                "Fréchet distance of generated embeddings to warm ones, by method",
                rows,
                "share of the warm embeddings' variance",
                SHARE,
            ),
            f"Squared Fréchet distance of the fitted Gaussians, {subject.where}. A random half of "
            f"the warm items is the reference; the other half, held out, shows what {items:,} real "
            "items reach: a method near it makes items like real ones. Smaller is closer.",
            ("Embeddings", "Fréchet distance ÷ variance"),
            [(row.label, f"{row.value:.3f}") for row in rows],
        )
    )
    levels = (5, 25, 50, 75, 95)
    held = np.concatenate([x.nearest_held_out for x in everyone])
    intervals = [
        Interval("held-out warm items", np.percentile(held, levels).tolist(), None),
        *(
            Interval(
                m,
                np.percentile(
                    np.concatenate([x.nearest_generated for x in measured[m]]), levels
                ).tolist(),
                subject.colours.get(m),
                m == subject.main,
            )
            for m in methods
        ),
    ]
    part.figures.append(
        Figure(
            "Distance to the nearest warm item",
            interval_chart(
                "Distance of an embedding to the nearest warm one, by method",
                intervals,
                "multiples of the held-out items' median",
                SHARE,
            ),
            f"For each embedding, how far the nearest warm item of the reference half is, "
            f"{subject.where}. Dot: median; thick: middle half; thin: nine tenths. Generated items "
            "that lie like real ones have the held-out row's spread; far left of it they crowd "
            "onto warm items, far right they miss them.",
            ("Embeddings", *(f"{level} %" for level in levels)),
            [(row.label, *(f"{q:.2f}" for q in row.quantiles)) for row in intervals],
        )
    )
    return part


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
            part.lack(f"Recall by {what}", BENCH)
            continue
        edges = _edges(pl.concat([frame[column].cast(pl.Float64) for _, frame in having]))
        whole = all(frame[column].dtype.is_integer() for _, frame in having)
        names = _bin_names(edges, whole)
        metric = _recall_column(having[0][1]) or ""
        series = []
        order = {method: k for k, method in enumerate(subject.ranking)}
        methods = sorted(
            {run.method for run, _ in having} - {FLOOR}, key=lambda m: order.get(m, len(order))
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
            "the share of a user's cold items, validation and test, that stand in the list that "
            "the node keeps"
            if kept
            else "test items"
        )
        part.figures.append(
            Figure(
                title,
                line_chart(
                    f"{metric_words(metric)} by {what}",
                    series,
                    x_label,
                    metric_words(metric),
                    x_names=names,
                ),
                f"{metric_words(metric)} ({told}) of {subject.where}, users in groups of about the "
                f"same size ({min(counts):,} to {max(counts):,}); whiskers are a standard error "
                f"over users.{_notes(series)}",
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


def cost_part(subject: Subject) -> Part:
    """Time and memory."""
    part = Part()
    if not subject.bench:
        if steps := _time_steps(subject.runs[0]):
            part.figures.append(_value_figure(
                "Where the time went",
                [Row(name, value, (), 0) for name, value in steps], "wall-clock time", TIME,
                f"Wall-clock seconds of this run, {subject.where}; {_machine(subject.runs[0])}.",
                bars=True,
            ))  # fmt: skip
        memory = subject.runs[0].summary.get("memory", {})
        rows = [
            Row(label, float(memory[key]), (), 0)
            for key, label in (("server_peak_rss_mb", "server"), ("peak_rss_mb", "largest process"))
            if isinstance(memory.get(key), int | float)
        ]
        if rows:
            part.figures.append(_value_figure(
                "Peak memory", rows, "peak resident memory", MEMORY,
                f"Peak resident memory, {subject.where}; the largest process may be the server or "
                "a node.", bars=True,
            ))  # fmt: skip
    else:
        for read, title, axis, unit, caption in (
            (lambda r: r.seconds, "Time of a run", "wall-clock time", TIME,
             "Wall-clock seconds of a whole run"),
            (lambda r: r.generator_seconds, "Time of the generator", "wall-clock time", TIME,
             "Seconds in which the generator trained, over a whole run"),
            (lambda r: r.memory_mb, "Peak memory", "peak resident memory", MEMORY,
             "Peak resident memory of the process"),
        ):  # fmt: skip
            rows = []
            for method in subject.ranking:
                values = [
                    v for r in subject.by_method.get(method, []) if (v := read(r)) is not None
                ]
                if values:
                    rows.append(
                        Row(
                            method,
                            fmean(values),
                            (),
                            subject.colours.get(method),
                            method == subject.main,
                        )
                    )
            if any(row.value for row in rows):
                part.figures.append(_value_figure(
                    title, rows, axis, unit, f"{caption}, {subject.where}.", bars=True
                ))  # fmt: skip
    if not part.figures:
        part.lack("Time and memory", BENCH if subject.bench else SIMULATE)
    return part


def _add_curves(
    part: Part,
    lines: Sequence[Series],
    metric: str,
    subject: Subject,
) -> None:
    lines = [line for line in lines if line.points]
    rounds = [x for line in lines for x, _ in line.points]
    if not rounds:
        return
    level = [
        r.validation[metric] for r in subject.by_method.get(PROFILE, []) if metric in r.validation
    ]
    note = ""
    if level and not any(line.label == PROFILE for line in lines):
        ends = [(min(rounds), fmean(level)), (max(rounds), fmean(level))]
        if max(rounds) == min(rounds):
            ends = ends[:1]
        label = "content profile" if subject.bench else "profile @20"
        lines = [*lines, Series(label, ends, COLOURS - 1, dashed=True)]
        if len(ends) > 1:
            note = (
                f" The dashed line is the content profile's {metric_words(metric)}: it has no "
                "rounds."
            )
    single = subject.bench
    title = f"{metric_words(metric) if single else 'Recall'} over rounds"
    part.figures.append(
        _line_figure(
            title,
            lines,
            metric_words(metric) if single else "Recall",
            f"On cold validation items of {subject.where}, "
            f"at every round that was validated.{note}",
        )
    )


def _line_figure(
    title: str,
    lines: Sequence[Series],
    y_label: str,
    caption: str,
    unit: Unit = PER_CENT,
) -> Figure:
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
        caption + _notes(lines),
        ["Round", *(line.label for line in lines)],
        rows,
    )  # fmt: skip


def _notes(lines: Sequence[Series]) -> str:
    """What a reader of lines must know beside the caption."""
    notes = "" if from_zero(lines) else " The vertical axis does not begin at zero."
    if any(line.colour is None for line in lines):
        notes += " Grey: other methods."
    return notes


def metric_words(name: str) -> str:
    """A metric as captions write it."""
    metric, _, k = name.partition("@")
    return f"{'NDCG' if metric == 'ndcg' else metric.title()}@{k}"


def _curve(runs: Sequence[Run], column: str) -> list[tuple[float, float]]:
    """A column of ``rounds.csv`` as the mean over runs, as far as all that have it go."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for row in run.rounds:
            value = row.get(column)
            if isinstance(value, int | float) and np.isfinite(value):
                values.setdefault(float(row["round"]), []).append(float(value))
    most = max(map(len, values.values()), default=0)
    return [(k, fmean(found)) for k, found in sorted(values.items()) if len(found) == most]


def _map_data(points: Points) -> dict[str, Any]:
    """Whole-number places on the map, as flat lists, on one scale for all rounds."""
    rounds = sorted(points)
    if len(rounds) > MAP_ROUNDS:
        places = np.linspace(0, len(rounds) - 1, MAP_ROUNDS).round().astype(int)
        rounds = [rounds[k] for k in places]
    kept = {
        number: {kind: _thin(np.asarray(rows, dtype=np.float64)) for kind, rows in kinds.items()}
        for number, kinds in ((number, points[number]) for number in rounds)
    }
    everything = np.concatenate([rows for kinds in kept.values() for rows in kinds.values()])
    low, high = everything.min(axis=0), everything.max(axis=0)
    span = float((high - low).max()) or 1.0
    middle = (low + high) / 2
    margin = 44.0

    def place(rows: np.ndarray) -> list[int]:
        centred = (rows - middle) / span * [1, -1]
        return np.rint(MAP / 2 + centred * (MAP - 2 * margin)).astype(int).flatten().tolist()

    return {
        "rounds": rounds,
        "warm": [place(kept[number]["warm"]) for number in rounds],
        "cold": [place(kept[number]["cold"]) for number in rounds],
    }


def _thin(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= MAP_POINTS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAP_POINTS).round().astype(int)]


def _pairs(flat: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


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


def _value_figure(
    title: str,
    rows: Sequence[Row],
    axis: str,
    unit: Unit,
    caption: str,
    bars: bool,
) -> Figure:
    return Figure(
        title,
        value_chart(title, rows, axis, unit, bars),
        caption,
        ("", axis),
        [(row.label, unit.value(row.value)) for row in rows],
    )


def _time_steps(run: Run) -> list[tuple[str, float]]:
    timing = run.summary.get("timing", {})
    steps = [("encoding texts", timing.get("encode_seconds"))]
    for column, label in (
        ("train_seconds", "rounds of training"),
        ("generator_seconds", "training the generator"),
        ("evaluate_seconds", "validating"),
    ):
        values = [row[column] for row in run.rounds if isinstance(row.get(column), int | float)]
        steps.append((label, sum(values) if values else None))
    known = [(label, float(value)) for label, value in steps if value is not None]
    total = timing.get("total_seconds")
    if total is not None and (rest := float(total) - sum(v for _, v in known)) > 0:
        known.append(("baselines, test, lists", rest))
    return known


def _machine(run: Run) -> str:
    device = run.summary.get("memory", {}).get("device")
    return f"the server computed on {device}" if device else "device unknown"
