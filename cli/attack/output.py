"""What an attack leaves: attack.json, a page, and its table on the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from cli.short_table import ShortTable
from common.durable import make_folder, write_atomic

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
    make_folder(folder)
    write_atomic(folder / "attack.json", json.dumps(told, indent=1).encode())
    write_atomic(folder / "report.html", page.encode())
    ShortTable(head, rows, names=2).show()
    typer.echo(f"what these numbers mean is in {folder / 'report.html'}")
