"""Warm and generated embeddings: their map, and how far they lie from each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from cli.report.charts import (
    COLOURS,
    MAP,
    Figure,
    Interval,
    Row,
    Unit,
    embedding_map,
    interval_chart,
    value_chart,
)
from cli.report.distance import Misalignment, misalignment
from cli.report.parts.part import Part, maker
from cli.report.run import Points
from cli.report.subject import Subject
from server_app.run_folder import EMBEDDINGS

MAP_POINTS = 500
MAP_ROUNDS = 9
SHARE = Unit(lambda value: f"{value:g}", lambda value: f"{value:.2f}")


@dataclass
class MapPart:
    """The map of embeddings: what the slider needs, and what stands there without it."""

    methods: list[str]
    rounds: list[int]
    shown: Markup
    prints: list[tuple[int, Markup]]
    data: dict[str, Any]
    counts: tuple[int, int]


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
        part.lack("Distances of embeddings", maker(subject), EMBEDDINGS)
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
