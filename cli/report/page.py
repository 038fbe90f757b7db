"""The parts of the report: which charts and tables a source gives, and their words."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cli.report.charts import (
    COLOURS,
    MAP,
    Figure,
    Interval,
    Row,
    Series,
    embedding_map,
    interval_chart,
    line_chart,
    percent,
    value_chart,
)
from cli.report.distance import Misalignment, misalignment
from cli.report.source import PROFILE, Points, Result, Run, Sample, Source
from common.catalogue import find_table, read_table
from common.errors import SnowdropError
from common.settings import RunSettings

HERE = Path(__file__).parent
FLOOR = "random"
GROUPS = 5
MAP_POINTS = 500
MAP_ROUNDS = 9
TITLE_LETTERS = 180

BENCH = "snowdrop bench DATA_DIR --out DIR"
SIMULATE = "snowdrop simulate DATA_DIR --run-dir DIR"


@dataclass
class Cell:
    """One number of the result table; ``sort`` is what the best of a column is found by."""

    text: str
    sort: float | None = None
    spread: str = ""
    kind: str = ""


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


@dataclass
class Chapter:
    """Everything about one data set."""

    name: str
    facts: list[tuple[str, str]]
    generated: bool
    headline: list[tuple[str, str, str]]
    head: list[str]
    table: list[tuple[str, list[Cell]]]
    table_caption: str
    results: Part
    learning: Part
    map: MapPart | None
    map_missing: tuple[str, str] | None
    distance: Part
    people: Part
    sample: list[Sample]
    sample_caption: str
    sample_missing: tuple[str, str] | None
    cost: Part
    settings: list[tuple[str, str]]


def render(source: Source, made: str) -> str:
    """The whole report as one HTML page.

    Parameters
    ----------
    source : Source
    made : str
        Date on which it was made, as shown.
    """
    names = list(
        dict.fromkeys(
            [*(result.data for result in source.results), *(run.data for run in source.runs)]
        )
    )
    known = [name for name in names if any(result.data == name for result in source.results)]
    chapters = [_chapter(source, name) for name in known or names[:1]]
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = shorten
    maps = [chapter.map.data if chapter.map else None for chapter in chapters]
    return environment.get_template("page.html.j2").render(
        chapters=chapters,
        bench=source.bench,
        folder=source.folder.resolve().name,
        made=made,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        maps=_script_json(maps),
    )


def shorten(title: str) -> str:
    """A title of bearable length."""
    return title if len(title) <= TITLE_LETTERS else title[: TITLE_LETTERS - 1].rstrip() + "…"


def _chapter(source: Source, name: str) -> Chapter:
    results = [result for result in source.results if result.data == name]
    runs = [run for run in source.runs if run.data == name] or source.runs
    by_method = _grouped(results, lambda result: result.method)
    ranking = _ranking(by_method) or list(dict.fromkeys(run.method for run in runs))
    main = ranking[0] if source.bench else runs[0].method
    colours = _colours(main, ranking)
    seeds = sorted({result.seed for result in results} or {run.seed for run in runs})
    words = _Words(source.bench, name, seeds, runs, main)
    best_runs = [run for run in runs if run.method == main] or runs
    head, table = _result_table(by_method, ranking, source.bench)
    map_part = _map(runs, ranking, main)
    sample_run = next((run for run in [*best_runs, *runs] if run.sample), None)
    return Chapter(
        name=name,
        facts=words.facts(),
        generated=any(run.generated_data for run in runs),
        headline=_headline(by_method, main, words),
        head=head,
        table=table,
        table_caption=words.table(),
        results=_results_part(by_method, ranking, colours, words),
        learning=_learning(runs, by_method, colours, words, source.bench),
        map=map_part,
        map_missing=None
        if map_part
        else ("Embeddings over rounds", BENCH if source.bench else SIMULATE),
        distance=_distance(runs, ranking, colours, words, source.bench),
        people=_people(runs, ranking, colours, words),
        sample=sample_run.sample if sample_run else [],
        sample_caption=words.sample(sample_run) if sample_run else "",
        sample_missing=None
        if sample_run
        else ("Users' recommendations", BENCH if source.bench else SIMULATE),
        cost=_cost(runs, by_method, ranking, colours, words, source.bench),
        settings=_changed_settings(best_runs[0]) if best_runs else [],
    )


@dataclass(frozen=True)
class _Words:
    """What captions say of the data, split and seeds."""

    bench: bool
    name: str
    seeds: list[str]
    runs: list[Run]
    main: str

    @property
    def summary(self) -> dict[str, Any]:
        told = (run.summary for run in self.runs if run.method == self.main)
        return next((summary for summary in told if summary), self.runs[0].summary if self.runs
                    else {})  # fmt: skip

    @property
    def seed(self) -> str:
        seeds = [seed for seed in self.seeds if seed]
        if not seeds:
            return "seed unknown"
        return f"seed {seeds[0]}" if len(seeds) == 1 else f"mean over seeds {', '.join(seeds)}"

    @property
    def where(self) -> str:
        generated = any(run.generated_data for run in self.runs)
        return f"{self.name} ({'generated data, ' if generated else ''}{self.seed})"

    def facts(self) -> list[tuple[str, str]]:
        """Term and value."""
        data = self.summary.get("dataset", {})
        items, settings = data.get("items", {}), self.runs[0].settings if self.runs else {}
        facts = []
        if data.get("users"):
            facts.append(("Users", f"{data['users']:,}"))
        for split, label in (
            ("warm", "Warm items"),
            ("validation", "Validation items"),
            ("test", "Test items"),
        ):
            if items.get(split):
                facts.append((label, f"{items[split]:,}"))
        if interactions := sum(data.get("interactions", {}).values()):
            facts.append(("Interactions", f"{interactions:,}"))
        facts.append(("Seeds" if len(self.seeds) > 1 else "Seed", ", ".join(self.seeds) or "–"))
        if split := _split_words(settings):
            facts.append(("Split", split))
        if not self.bench:
            for key, label in (("preset", "Preset"), ("dim", "Dimensions"), ("nodes", "Nodes")):
                if key in settings:
                    facts.append((label, str(settings[key])))
        return facts

    def table(self) -> str:
        """Under the result table."""
        users = self.summary.get("tested_users")
        tested = f" over {users:,} users with a test item" if users else ""
        several = len(self.seeds) > 1
        spread = " ± standard deviation over seeds" if several else ""
        best = self.summary.get("best_round")
        chosen = "; the tested round is the best on validation items"
        if best and not self.bench:
            chosen += f", round {best}"
        return (
            f"Cold test items of {self.where}: no user's training saw them, and every user ranks "
            f"all of them. Means in per cent{tested}{spread}{chosen}. Bold is the best of a "
            "column, underlined the second."
        )

    def sample(self, run: Run) -> str:
        """Over the users' lists."""
        kind = "generated users" if run.generated_data else "users"
        drawn = "" if (run.folder / "sample.json").exists() else " drawn at random (seed 0)"
        return (
            f"A few {kind}{drawn} of {self.name}, {run.method}, seed {run.seed or 'unknown'}. "
            "Recommended are new items that nobody's training touched; a tick marks those that "
            "the user did interact with. The lists come from a simulation: in a deployment they "
            "stay on each user's node."
        )


def _split_words(settings: Mapping[str, Any]) -> str:
    try:
        items = read_table(find_table(Path(str(settings["data"])), "items"))
    except (KeyError, SnowdropError):
        return ""
    if "split" in items.columns:
        return "given with the data"
    return f"6 : 1 : 3 by seed {settings.get('seed', 0)}"


def _grouped(results: Iterable[Result], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def _ranking(by_method: Mapping[str, list[Result]]) -> list[str]:
    """Methods, best first: by validation where every method has it, else by test."""
    validated = all(r.validation for group in by_method.values() for r in group)

    def score(method: str) -> float:
        group = by_method[method]
        return fmean(_main_metric(r.validation if validated else r.test)[1] for r in group)

    return sorted(by_method, key=score, reverse=True)


def _main_metric(metrics: Mapping[str, float]) -> tuple[str, float]:
    for name in ("recall@20", *metrics):
        if name.startswith("recall") and name in metrics:
            return name, metrics[name]
    return "recall@20", 0.0


def _colours(main: str, ranking: Sequence[str]) -> dict[str, int | None]:
    """A colour for the main method, the best others and the content profile; grey for the rest."""
    others = [m for m in ranking if m not in (main, PROFILE, FLOOR)]
    colours: dict[str, int | None] = {main: 0}
    colours |= {method: k + 1 for k, method in enumerate(others[: COLOURS - 2])}
    colours.setdefault(PROFILE, COLOURS - 1)
    return {method: colours.get(method) for method in [*ranking, main, PROFILE]}


def _headline(
    by_method: Mapping[str, list[Result]], main: str, words: _Words
) -> list[tuple[str, str, str]]:
    if main not in by_method:
        return []
    name, _ = _main_metric(by_method[main][0].test)
    value = _mean(by_method[main], name)
    lines = [(f"{100 * value:.1f} %", f"{name.title()}, {main}", "of cold test items")]
    if PROFILE in by_method and (profile := _mean(by_method[PROFILE], name)) and main != PROFILE:
        lines.append(
            (f"{value / profile:.2f} ×", "the content profile", "which needs no federation")
        )
    if FLOOR in by_method and (floor := _mean(by_method[FLOOR], name)) and main != FLOOR:
        lines.append((f"{value / floor:.0f} ×", "random ranking", f"{100 * floor:.1f} %"))
    return lines


def _mean(group: Sequence[Result], name: str) -> float:
    values = [result.test[name] for result in group if name in result.test]
    return fmean(values) if values else 0.0


def _result_table(
    by_method: Mapping[str, list[Result]], ranking: Sequence[str], bench: bool
) -> tuple[list[str], list[tuple[str, list[Cell]]]]:
    wanted = ("recall@20", "recall@50", "recall@100", "precision@20", "ndcg@20", "ndcg@100")
    present = {name for group in by_method.values() for r in group for name in r.test}
    names = [n for n in wanted if n in present] or sorted(present)
    profile = _mean(by_method.get(PROFILE, []), names[0]) if names else 0.0
    table = []
    for method in ranking if by_method else []:
        group = by_method[method]
        cells = []
        for name in names:
            values = [100 * result.test[name] for result in group if name in result.test]
            if not values:
                cells.append(Cell("–"))
                continue
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(Cell(f"{fmean(values):.2f}", fmean(values), spread))
        if profile:
            cells.append(Cell(f"{_mean(group, names[0]) / profile:.3f}"))
        if bench:
            cells.append(Cell(str(len(group))))
        table.append((method, cells))
    for column in range(len(names)):
        ranked = sorted(
            {cells[column].sort for _, cells in table if cells[column].sort is not None},
            reverse=True,
        )
        for _, cells in table:
            if cells[column].sort is not None and len(table) > 1:
                place = ranked.index(cells[column].sort)
                cells[column].kind = ("best", "second", "")[min(place, 2)]
    head = [name.replace("ndcg", "NDCG").replace("recall", "Recall") for name in names]
    head = [name.replace("precision", "Precision") for name in head]
    head += [f"{head[0]} ÷ profile"] if profile else []
    return head + (["Runs"] if bench else []), table


def _results_part(
    by_method: Mapping[str, list[Result]],
    ranking: Sequence[str],
    colours: Mapping[str, int | None],
    words: _Words,
) -> Part:
    part = Part()
    if not by_method:
        part.lack("The test comes at the end of a run: no result yet", f"{SIMULATE} …")
        return part
    metric, _ = _main_metric(next(iter(by_method.values()))[0].test)
    for name in (metric, metric.replace("recall", "ndcg")):
        rows = [
            Row(
                method,
                _mean(by_method[method], name),
                [r.test[name] for r in by_method[method] if name in r.test],
                colours.get(method),
                method == words.main,
            )
            for method in sorted(by_method, key=lambda m: -_mean(by_method[m], name))
            if any(name in r.test for r in by_method[method])
        ]
        if not rows:
            continue
        title = f"{_metric_words(name)} on cold test items"
        several = " Small strokes are single seeds." if len(words.seeds) > 1 else ""
        part.figures.append(
            Figure(
                title,
                value_chart(f"{title}, by method", rows, _metric_words(name)),
                f"Test items of {words.where}.{several}",
                ("Method", _metric_words(name)),
                [(row.label, f"{100 * row.value:.2f} %") for row in rows],
            )
        )
    return part


def _metric_words(name: str) -> str:
    metric, _, k = name.partition("@")
    return f"{'NDCG' if metric == 'ndcg' else metric.title()}@{k}"


def _curve(runs: Sequence[Run], column: str) -> list[tuple[float, float]]:
    """A column of ``rounds.csv`` over rounds, as the mean over runs that have the round."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for row in run.rounds:
            value = row.get(column)
            if isinstance(value, int | float) and np.isfinite(value):
                values.setdefault(float(row["round"]), []).append(float(value))
    return [(number, fmean(found)) for number, found in sorted(values.items())]


def _learning(
    runs: Sequence[Run],
    by_method: Mapping[str, list[Result]],
    colours: Mapping[str, int | None],
    words: _Words,
    bench: bool,
) -> Part:
    part = Part()
    methods = list(dict.fromkeys(run.method for run in runs))
    order = {method: k for k, method in enumerate(colours)}
    methods.sort(key=lambda m: order.get(m, len(order)))
    if bench:
        for metric in ("recall@20", "ndcg@20"):
            lines = [
                Series(m, _curve([r for r in runs if r.method == m], f"validation_{metric}"),
                       colours.get(m))
                for m in methods
            ]  # fmt: skip
            _add_curves(part, lines, by_method, metric, words)
    else:
        lines = [
            Series(f"Recall@{k}", _curve(runs, f"validation_recall@{k}"), place)
            for place, k in enumerate((20, 50, 100))
        ]
        _add_curves(part, lines, by_method, "recall@20", words)
        losses = [
            Series("users", _curve(runs, "loss"), 0),
            Series("generator", _curve(runs, "generator_loss"), 1),
        ]
        losses = [line for line in losses if line.points]
        if losses:
            part.figures.append(
                _line_figure(
                    "Training loss",
                    losses,
                    "loss",
                    f"Mean loss of the users' local training and of the generator, {words.where}. "
                    "The two are on the same axis but measure different things.",
                    form=lambda value: f"{value:.3g}",
                )
            )
    if not part.figures:
        part.lack("Curves over rounds (rounds.csv)", BENCH if bench else SIMULATE)
    return part


def _add_curves(
    part: Part,
    lines: Sequence[Series],
    by_method: Mapping[str, list[Result]],
    metric: str,
    words: _Words,
) -> None:
    lines = [line for line in lines if line.points]
    rounds = [x for line in lines for x, _ in line.points]
    if not rounds:
        return
    level = [r.validation[metric] for r in by_method.get(PROFILE, []) if metric in r.validation]
    note = ""
    if level and not any(line.label == PROFILE for line in lines):
        ends = [(min(rounds), fmean(level)), (max(rounds), fmean(level))]
        if max(rounds) == min(rounds):
            ends = ends[:1]
        label = "content profile" if words.bench else "profile @20"
        lines = [*lines, Series(label, ends, COLOURS - 1, dashed=True)]
        note = (
            f" The dashed line is the content profile's {_metric_words(metric)}: it has no rounds."
        )
    single = words.bench
    title = f"{_metric_words(metric) if single else 'Recall'} over rounds"
    part.figures.append(
        _line_figure(
            title,
            lines,
            _metric_words(metric) if single else "Recall",
            f"On cold validation items of {words.where}, at every round that was validated.{note}",
        )
    )


def _line_figure(
    title: str,
    lines: Sequence[Series],
    y_label: str,
    caption: str,
    form: Callable[[float], str] = percent,
) -> Figure:
    rounds = sorted({x for line in lines for x, _ in line.points})
    if len(rounds) > 24:
        step = -(-len(rounds) // 24)
        rounds = [*rounds[:-1:step], rounds[-1]]
    values = [dict(line.points) for line in lines]
    rows = [
        [f"{x:g}", *(form(value[x]) if x in value else "–" for value in values)] for x in rounds
    ]
    return Figure(
        title,
        line_chart(f"{title}: {', '.join(line.label for line in lines)}", lines, "round", y_label,
                   form),
        caption,
        ["Round", *(line.label for line in lines)],
        rows,
    )  # fmt: skip


def _map(runs: Sequence[Run], ranking: Sequence[str], main: str) -> MapPart | None:
    """Points of one run of each method that has snapshots, the main method first."""
    order = [main, *(method for method in ranking if method != main)]
    found: dict[str, Points] = {}
    for method in order:
        run = next((r for r in runs if r.method == method and r.points), None)
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


def _distance(
    runs: Sequence[Run],
    ranking: Sequence[str],
    colours: Mapping[str, int | None],
    words: _Words,
    bench: bool,
) -> Part:
    part = Part()
    measured: dict[str, list[Misalignment]] = {}
    for run in runs:
        both = run.embeddings
        if both is not None and (found := misalignment(*both)) is not None:
            measured.setdefault(run.method, []).append(found)
    if not measured:
        part.lack("Distances of embeddings", BENCH if bench else SIMULATE)
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
                colours.get(m),
                m == words.main,
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
                lambda value: f"{value:.2f}",
            ),
            f"Squared Fréchet distance of the fitted Gaussians, {words.where}. A random half of "
            f"the warm items is the reference; the other half, held out, shows what {items:,} real "
            "items reach, so its dot is the floor. Smaller is closer.",
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
                colours.get(m),
                m == words.main,
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
                lambda value: f"{value:.2g}",
            ),
            f"For each embedding, how far the nearest warm item of the reference half is, "
            f"{words.where}. Dot: median; thick: middle half; thin: nine tenths. Generated items "
            "that lie like real ones have the held-out row's spread; far left of it they crowd "
            "onto warm items, far right they miss them.",
            ("Embeddings", *(f"{level} %" for level in levels)),
            [(row.label, *(f"{q:.2f}" for q in row.quantiles)) for row in intervals],
        )
    )
    return part


def _people(
    runs: Sequence[Run],
    ranking: Sequence[str],
    colours: Mapping[str, int | None],
    words: _Words,
) -> Part:
    part = Part()
    frames = [(run, run.users) for run in runs]
    for column, title, x_label, what in (
        ("history", "By length of history", "warm items in a user's history",
         "how many warm items a user has"),
        ("similarity", "By similarity to warm items",
         "cosine of the user's test items to the nearest warm items",
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
        order = {method: k for k, method in enumerate(ranking)}
        methods = sorted({run.method for run, _ in having}, key=lambda m: order.get(m, len(order)))
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
                series.append(Series(method, points, 0 if only else colours.get(method), spread))
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
                    f"{_metric_words(metric)} by {what}",
                    series,
                    x_label,
                    _metric_words(metric),
                    x_names=names,
                ),
                f"{_metric_words(metric)} ({told}) of {words.where}, users in groups of about the "
                f"same size ({min(counts):,} to {max(counts):,}); whiskers are a standard error "
                "over users.",
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
        return [f"{a:.2f}–{b:.2f}" for a, b in pairwise(edges)]
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


def _cost(
    runs: Sequence[Run],
    by_method: Mapping[str, list[Result]],
    ranking: Sequence[str],
    colours: Mapping[str, int | None],
    words: _Words,
    bench: bool,
) -> Part:
    part = Part()
    if not bench:
        if steps := _time_steps(runs[0]):
            part.figures.append(_value_figure(
                "Where the time went",
                [Row(name, value, (), 0) for name, value in steps], "seconds", _seconds,
                f"Wall-clock seconds of this run, {words.where}; {_machine(runs[0])}.",
                bars=True,
            ))  # fmt: skip
        memory = runs[0].summary.get("memory", {})
        rows = [
            Row(label, float(memory[key]), (), 0)
            for key, label in (("server_peak_rss_mb", "server"), ("peak_rss_mb", "largest process"))
            if isinstance(memory.get(key), int | float)
        ]
        if rows:
            part.figures.append(_value_figure(
                "Peak memory", rows, "megabytes", _megabytes,
                f"Peak resident memory, {words.where}; the largest process may be the server or "
                "a node.", bars=True,
            ))  # fmt: skip
    else:
        for read, title, unit, form, caption in (
            (lambda r: r.seconds, "Time of a run", "seconds", _seconds,
             "Wall-clock seconds of a whole run"),
            (lambda r: r.generator_seconds, "Time of the generator", "seconds", _seconds,
             "Seconds in which the generator trained, over a whole run"),
            (lambda r: r.memory_mb, "Peak memory", "megabytes", _megabytes,
             "Peak resident memory of the process"),
        ):  # fmt: skip
            rows = []
            for method in ranking:
                values = [v for r in by_method[method] if (v := read(r)) is not None]
                if values:
                    rows.append(
                        Row(method, fmean(values), (), colours.get(method), method == words.main)
                    )
            if any(row.value for row in rows):
                part.figures.append(_value_figure(
                    title, rows, unit, form, f"{caption}, {words.where}.", bars=True
                ))  # fmt: skip
    if not part.figures:
        part.lack("Time and memory", BENCH if bench else SIMULATE)
    return part


def _value_figure(
    title: str,
    rows: Sequence[Row],
    unit: str,
    form: Callable[[float], str],
    caption: str,
    bars: bool,
) -> Figure:
    return Figure(
        title,
        value_chart(title, rows, unit, form, bars),
        caption,
        ("", unit),
        [(row.label, form(row.value)) for row in rows],
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


def _seconds(value: float) -> str:
    if value >= 5400:
        return f"{value / 3600:.3g} h"
    return f"{value / 60:.3g} min" if value >= 120 else f"{value:.3g} s"


def _megabytes(value: float) -> str:
    return f"{value / 1000:.3g} GB" if value >= 1000 else f"{value:.3g} MB"


def _changed_settings(run: Run) -> list[tuple[str, str]]:
    """Settings of a run that are not the default, paths left out."""
    fields = RunSettings.model_fields
    hidden = {"data", "run_dir", "resume", "encode_cache"}
    return [
        (key, str(value))
        for key, value in run.settings.items()
        if key not in hidden and not (key in fields and fields[key].default == value)
    ]


def _script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)
