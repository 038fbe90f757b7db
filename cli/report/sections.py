"""Pages that are sections one after the other: a headline, a table, words, charts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.report.charts import Figure
from cli.report.template import render_template


@dataclass
class Section:
    """A part of the page.

    Parameters
    ----------
    title : str
    headline : Sequence[tuple[str, str, str]]
        Number, what it is, a few words more.
    head, rows : Sequence
        A table.
    words : Sequence[str]
        Paragraphs.
    figures : Sequence[Figure]
    """

    title: str
    headline: Sequence[tuple[str, str, str]] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    missing: Sequence[tuple[str, str]] = field(default=())


@dataclass(frozen=True)
class Page:
    """What stands around the sections.

    Parameters
    ----------
    kind : str
        Beside the name of the project.
    title : str
        The page's title, which ends where the name of the data follows.
    data : str
    badge : str
        A few words in a frame; may be empty.
    lede : str
        The first paragraph.
    made : str
        Today's date, as shown.
    command : str
        Which made it.
    facts, settings : Sequence[tuple[str, str]]
        Terms and values.
    """

    kind: str
    title: str
    data: str
    lede: str
    made: str
    command: str
    badge: str = ""
    facts: Sequence[tuple[str, str]] = ()
    settings: Sequence[tuple[str, str]] = ()

    def render(self, sections: Sequence[Section]) -> str:
        """One HTML file that loads nothing."""
        return render_template("sections.html.j2", page=self, sections=sections)
