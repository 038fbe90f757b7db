"""`snowdrop report`: a run, or a comparison of many, as one HTML page that needs no network."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from common.durable import write_atomic
from common.errors import SnowdropError


def report(
    folder: Annotated[Path, typer.Argument(help="a run directory, or the folder of a comparison")],
    out: Annotated[
        Path | None, typer.Option(help="the HTML file (default: report.html in the folder)")
    ] = None,
) -> None:
    """Make one self-contained HTML page of results, curves, embeddings and recommendations."""
    typer.echo(f"the report is in {make_report(folder, out)}")


def make_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run or of a comparison, and return the file that it went to.

    Raises
    ------
    SnowdropError
        If the folder holds no results, or the file cannot be written.
    """
    from cli.report.page import render  # loads torch and Flower, which `--help` must not wait for
    from cli.report.source import read_source

    if not folder.is_dir():
        raise SnowdropError(
            f"{folder} is not a folder; give a run directory or the folder of a comparison"
        )
    path = out or folder / "report.html"
    page = render(read_source(folder), f"{datetime.now():%-d %B %Y}")
    write_atomic(path, page.encode("utf-8"))
    return path
