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

    A folder of anything else that brings its own page, as that of an attack, keeps it.

    Raises
    ------
    SnowdropError
        If the folder holds no results, or the file cannot be written.
    """
    from cli.report.page import render  # loads torch and Flower, which `--help` must not wait for
    from cli.report.source import holds_results, read_source

    if not folder.is_dir():
        raise SnowdropError(
            f"{folder} is not a folder; give a run directory or the folder of a comparison"
        )
    own = folder / "report.html"
    path = out or own
    if own.exists() and not holds_results(folder):
        if path != own:
            write_atomic(path, own.read_bytes())
        return path
    page = render(read_source(folder), f"{datetime.now():%-d %B %Y}")
    write_atomic(path, page.encode("utf-8"))
    return path
