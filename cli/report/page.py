"""The page: its parts put together, data set by data set."""

import json
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cli.report import parts
from cli.report.lists import Sample
from cli.report.run import Run
from cli.report.source import Source
from cli.report.subject import Subject
from cli.report.table import Line, headline, result_table

HERE = Path(__file__).parent
TITLE_LETTERS = 180


@dataclass
class Chapter:
    """Everything about one data set."""

    subject: Subject
    headline: list[tuple[str, str, str]]
    head: list[str]
    table: list[Line]
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
        problems=source.problems,  # after the chapters, which read what they need
    )


def shorten(title: str) -> str:
    """A title of bearable length, without the HTML entities that shops leave in their texts."""
    title = unescape(title)
    return title if len(title) <= TITLE_LETTERS else title[: TITLE_LETTERS - 1].rstrip() + "…"


def _chapter(subject: Subject) -> Chapter:
    head, table = result_table(subject)
    main_runs = subject.runs_of(subject.main)
    shown = next((run for run in [*main_runs, *subject.runs] if run.sample), None)
    return Chapter(
        subject=subject,
        headline=headline(subject),
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


def _changed_settings(run: Run) -> list[tuple[str, str]]:
    """Settings of a run that are not the default, without paths."""
    if run.settings is None:
        return []
    hidden = {"data", "run_dir"}
    return [(key, str(value)) for key, value in run.settings.changed().items() if key not in hidden]


def _script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)
