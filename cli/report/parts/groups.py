"""Groups of users, where a method has some: what each prefers, and how stable they are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cli.report.charts import Series
from cli.report.parts.learning import curve
from cli.report.parts.part import Part, line_figure
from cli.report.run import Run
from cli.report.subject import Subject
from common.catalogue import find_table, read_table
from common.errors import SnowdropError

SHOWN = 10
"""Items of a group that are shown."""


@dataclass(frozen=True)
class Group:
    """A group of users as the page shows it."""

    name: str
    titles: list[str]
    genres: str
    """How its items' genres differ from those of all items; empty where there are none."""


def groups_of(subject: Subject) -> list[Group]:
    """The groups of one run of the best method that has some."""
    run = _run(subject)
    if run is None:
        return []
    told = run.summary["groups"]
    titles, genres = _items(run)
    return [
        Group(
            f"Group {number}: {100 * one['share']:.0f} % of the users",
            [titles.get(item, item) for item in one["items"][:SHOWN]],
            genre_words([genres[item] for item in one["items"] if item in genres],
                        list(genres.values())),
        )
        for number, one in enumerate(told, 1)
    ]  # fmt: skip


def groups_part(subject: Subject) -> Part:
    """How far centroids move from round to round, and how many users change their group."""
    part, run = Part(), _run(subject)
    if run is None:
        return part
    lines = [
        Series("cosine of the centroids to those of the round before",
               curve([run], "group_cosine"), 0),
        Series("least share of users that changed group", curve([run], "group_moves"), 1),
    ]  # fmt: skip
    lines = [line for line in lines if line.points]
    if lines:
        part.figures.append(
            line_figure(
                "How stable groups are",
                lines,
                "per cent",
                f"{run.method}, {subject.name}, seed {run.seed}. Both are what the server knows: "
                "centroids, and how many users are in each group. Who changed group, only nodes "
                "know; the share is the least that the sizes allow.",
            )
        )
    return part


def _run(subject: Subject) -> Run | None:
    methods = [subject.main, *subject.ranking]
    runs = (run for method in methods for run in subject.runs_of(method))
    return next((run for run in runs if run.summary.get("groups")), None)


def _items(run: Run) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Titles of items, and their genres where the items file has them; empty without that file."""
    try:
        items = read_table(find_table(Path(run.settings.data if run.settings else ""), "items"))
    except SnowdropError:
        return {}, {}
    names = [name for name in ("title", *items.columns) if name in items.columns]
    title = next((name for name in names if name != "item_id"), "item_id")
    genres = _column(items, "genres") if "genres" in items.columns else {}
    return _column(items, title), {
        item: {one.strip() for one in text.split("|")} for item, text in genres.items()
    }


def _column(items: pl.DataFrame, name: str) -> dict[str, str]:
    known = items.drop_nulls(name)
    return dict(zip(known["item_id"], known[name], strict=True))


def genre_words(of_group: Sequence[set[str]], of_all: Sequence[set[str]]) -> str:
    """The genres that a group's items have more often than all items do, as a sentence.

    Parameters
    ----------
    of_group, of_all : Sequence[set[str]]
        Genres of each item.
    """
    if not of_group:
        return ""
    own, whole = (
        Counter(genre for genres in some for genre in genres) for some in (of_group, of_all)
    )
    more = {
        genre: (count / len(of_group), whole[genre] / len(of_all)) for genre, count in own.items()
    }
    best = sorted(more, key=lambda genre: (more[genre][1] - more[genre][0], genre))[:3]
    told = [
        f"{genre} {100 * more[genre][0]:.0f} % (all items: {100 * more[genre][1]:.0f} %)"
        for genre in best
        if more[genre][0] > more[genre][1]
    ]
    return f"Of its {len(of_group)} items: {', '.join(told)}." if told else ""
