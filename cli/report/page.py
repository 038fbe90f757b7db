"""The page: its parts put together, data set by data set."""

from dataclasses import dataclass

from cli.report import parts
from cli.report.lists import Sample
from cli.report.run import Run
from cli.report.source import Source
from cli.report.subject import Subject
from cli.report.table import Line, headline, result_table
from cli.report.template import render_template, script_json


@dataclass
class Chapter:
    """Everything about one data set."""

    subject: Subject
    headline: list[tuple[str, str, str]]
    head: list[str]
    table: list[Line]
    results: parts.Part
    curve: parts.Part
    learning: parts.Part
    map: parts.MapPart | None
    distance: parts.Part
    people: parts.Part
    groups: list[parts.Group]
    stability: parts.Part
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
    maps = [chapter.map.data if chapter.map else None for chapter in chapters]
    return render_template(
        "page.html.j2",
        chapters=chapters,
        bench=source.bench,
        folder=source.folder.resolve().name,
        made=made,
        maps=script_json(maps),
        problems=source.problems,  # after the chapters, which read what they need
    )


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
        curve=parts.curve_part(subject),
        learning=parts.learning_part(subject),
        map=parts.map_part(subject),
        distance=parts.distance_part(subject),
        people=parts.people_part(subject),
        groups=parts.groups_of(subject),
        stability=parts.groups_part(subject),
        sample=shown.sample if shown else [],
        sample_caption=subject.sample(shown) if shown else "",
        cost=parts.cost_part(subject),
        settings=_shown_settings(main_runs[0]) if main_runs else [],
        maker=parts.maker(subject),
    )


def _shown_settings(run: Run) -> list[tuple[str, str]]:
    """Settings of a run that are not the default, without paths and what each command gives."""
    if run.settings is None:
        return []
    hidden = {"data", "run_dir", "encode_cache", "resume", "fresh", "baselines"}
    return [(name, str(v)) for name, v in run.settings.unusual().items() if name not in hidden]
