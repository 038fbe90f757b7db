"""The page: its parts put together, data set by data set."""

import json
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cli.report import parts
from cli.report.source import PROFILE, Run, Sample, Source
from cli.report.subject import FLOOR, Subject
from common.settings import RunSettings

HERE = Path(__file__).parent
TITLE_LETTERS = 180


@dataclass
class Cell:
    """One number of the result table; ``sort`` is what the best of a column is found by."""

    text: str
    sort: float | None = None
    spread: str = ""
    kind: str = ""


@dataclass
class Chapter:
    """Everything about one data set."""

    subject: Subject
    headline: list[tuple[str, str, str]]
    head: list[str]
    table: list[tuple[str, list[Cell]]]
    results: parts.Part
    learning: parts.Part
    map: parts.MapPart | None
    distance: parts.Part
    people: parts.Part
    sample: list[Sample]
    sample_caption: str
    cost: parts.Part
    settings: list[tuple[str, str]]
    maker: str


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
    chapters = [_chapter(Subject.of(source, name)) for name in known or names[:1]]
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
    """A title of bearable length, without the HTML entities that shops leave in their texts."""
    title = unescape(title)
    return title if len(title) <= TITLE_LETTERS else title[: TITLE_LETTERS - 1].rstrip() + "…"


def _chapter(subject: Subject) -> Chapter:
    head, table = _result_table(subject)
    main_runs = subject.runs_of(subject.main)
    shown = next((run for run in [*main_runs, *subject.runs] if run.sample), None)
    return Chapter(
        subject=subject,
        headline=_headline(subject),
        head=head,
        table=table,
        results=parts.results_part(subject),
        learning=parts.learning_part(subject),
        map=parts.map_part(subject),
        distance=parts.distance_part(subject),
        people=parts.people_part(subject),
        sample=shown.sample if shown else [],
        sample_caption=subject.sample(shown) if shown else "",
        cost=parts.cost_part(subject),
        settings=_changed_settings(main_runs[0]) if main_runs else [],
        maker=parts.BENCH if subject.bench else parts.SIMULATE,
    )


def _headline(subject: Subject) -> list[tuple[str, str, str]]:
    """Number, what it is, and a word more."""
    main = subject.main
    if main not in subject.by_method:
        return []
    value = subject.mean(main, subject.metric)
    name = parts.metric_words(subject.metric)
    lines = [(f"{100 * value:.1f} %", f"{name}, {main}", "on cold test items")]
    if main != PROFILE and (profile := subject.mean(PROFILE, subject.metric)):
        lines.append(
            (f"{value / profile:.2f} ×", "the content profile", "which needs no federation")
        )
    if main != FLOOR and (floor := subject.mean(FLOOR, subject.metric)):
        lines.append(
            (f"{value / floor:.0f} ×", "random ranking", f"which reaches {100 * floor:.1f} %")
        )
    return lines


def _result_table(subject: Subject) -> tuple[list[str], list[tuple[str, list[Cell]]]]:
    wanted = ("recall@20", "recall@50", "recall@100", "precision@20", "ndcg@20", "ndcg@100")
    present = {name for group in subject.by_method.values() for r in group for name in r.test}
    names = [n for n in wanted if n in present] or sorted(present)
    profile = subject.mean(PROFILE, names[0]) if names else 0.0
    table = []
    for method in subject.ranking if subject.by_method else []:
        group = subject.by_method[method]
        cells = []
        for name in names:
            values = [100 * result.test[name] for result in group if name in result.test]
            if not values:
                cells.append(Cell("–"))
                continue
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            mean = fmean(values)
            cells.append(Cell(f"{mean:.2f}", round(mean, 2), spread))
        if profile:
            cells.append(Cell(f"{subject.mean(method, names[0]) / profile:.3f}"))
        if subject.bench:
            cells.append(Cell(str(len(group))))
        table.append((method, cells))
    for column in range(len(names)):
        shown = [sort for _, cells in table if (sort := cells[column].sort) is not None]
        for _, cells in table:
            if (sort := cells[column].sort) is not None and len(table) > 1:
                ahead = sum(other > sort for other in shown)
                cells[column].kind = ("best", "second", "")[min(ahead, 2)]
    head = [parts.metric_words(name) for name in names]
    head += [f"{head[0]} ÷ profile"] if profile else []
    return head + (["Runs"] if subject.bench else []), table


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
