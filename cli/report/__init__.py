"""`snowdrop report`: a run, or a bench of many, as one HTML page that needs no network."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.report.page import render
from cli.report.source import read_source
from common.durable import write_atomic
from common.errors import SnowdropError


def report(
    folder: Annotated[Path, typer.Argument(help="a run directory, or a bench directory")],
    out: Annotated[
        Path | None, typer.Option(help="the HTML file (default: report.html in the folder)")
    ] = None,
) -> None:
    """Make one self-contained HTML page of results, curves, embeddings and recommendations."""
    typer.echo(f"the report is in {make_report(folder, out)}")


def make_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run or bench directory; the file that it went to.

    Raises
    ------
    SnowdropError
        If the folder holds no results, or the file cannot be written.
    """
    if not folder.is_dir():
        raise SnowdropError(f"{folder} is no folder; give a run directory or a bench directory")
    path = out or folder / "report.html"
    page = render(read_source(folder), f"{datetime.now():%-d %B %Y}")
    write_atomic(path, page.encode("utf-8"))
    return path
