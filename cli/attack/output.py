"""What an attack leaves: attack.json, a page, and its table on the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from common.durable import make_folder, write_atomic

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1
"""Of attack.json."""


def publish(
    folder: Path,
    told: Mapping[str, Any],
    page: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
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

    Raises
    ------
    SnowdropError
        If something cannot be written.
    """
    from rich.console import Console

    make_folder(folder)
    write_atomic(folder / "attack.json", json.dumps(told, indent=1).encode())
    write_atomic(folder / "report.html", page.encode())
    Console().print(_shown(head, rows))
    typer.echo(f"what these numbers mean is in {folder / 'report.html'}")


def _shown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """A table for a terminal, whose second column names attacks."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, word in enumerate(head):
        table.add_column(word, no_wrap=place == 1)
    for row in rows:
        table.add_row(*row)
    return table
