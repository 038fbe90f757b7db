"""Pages from templates, with the style and the script that all pages of this project share."""

import json
from html import unescape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
TITLE_LETTERS = 180


def render_template(name: str, place: Path = HERE, **values: Any) -> str:
    """One HTML page that loads nothing: a template gets ``style`` and ``script`` besides.

    Parameters
    ----------
    name : str
        The template's file.
    place : Path
        Where it is; it may import ``macros.html.j2``.
    **values : Any
        What it shows.
    """
    environment = Environment(
        loader=FileSystemLoader([place, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = shorten
    return environment.get_template(name).render(
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        **values,
    )


def shorten(title: str) -> str:
    """A title of bearable length, without the HTML entities that shops leave in their texts."""
    title = unescape(title)
    return title if len(title) <= TITLE_LETTERS else title[: TITLE_LETTERS - 1].rstrip() + "…"


def script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)
