"""What an attack leaves: attack.json, a page, and its table on the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.short_table import ShortTable
from common.durable import make_folder, write_atomic

if TYPE_CHECKING:
    from cli.report.sections import Page

FORMAT = 1
"""Of attack.json."""


def page_of(
    told: Mapping[str, Any], made: str, title: str, lede: str, facts: Sequence[tuple[str, str]]
) -> "Page":
    """What stands around the sections of an attack's page.

    Parameters
    ----------
    told : Mapping[str, Any]
        As ``attack.json`` holds it.
    made : str
        Today's date, as shown.
    title : str
        It ends where the name of the data follows.
    lede : str
        The first paragraph.
    facts : Sequence[tuple[str, str]]
        Terms and values, before those that all attacks have.
    """
    from cli.report.sections import Page

    policy = [("Policy", "given" if told["policy"] else "none")] if "policy" in told else []
    return Page(
        kind="an attack",
        title=title,
        data=told["data"],
        lede=lede,
        made=made,
        command=f"snowdrop attack {told['attack']}",
        facts=[*facts, *policy, ("Seed", str(told["seed"]))],
        settings=list(told["settings"].items()),
    )


def publish(
    folder: Path,
    told: Mapping[str, Any],
    page: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    below: Sequence[str] = (),
) -> None:
    """Write attack.json and report.html, and print the table.

    Parameters
    ----------
    folder : Path
        Is made, if it is not there.
    told : Mapping[str, Any]
        What attack.json holds.
    page : str
        What report.html holds.
    head, rows : Sequence
        The table.
    below : Sequence[str]
        Sentences after it.

    Raises
    ------
    SnowdropError
        If something cannot be written.
    """
    make_folder(folder)
    write_atomic(folder / "attack.json", json.dumps(told, indent=1).encode())
    write_atomic(folder / "report.html", page.encode())
    ShortTable(head, rows, names=2, below=below).show()
    typer.echo(f"what these numbers mean is in {folder / 'report.html'}")
