"""NineRec (Westlake): the paper's KU, Food, Dance, Movie. https://github.com/westlake-repl/NineRec"""

from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import typer

from cli.prepare.output import Force, Out, checked, step, steps, write_folder
from common.catalogue import check_first_line, reading
from common.errors import SnowdropError


def ninerec(
    source: Annotated[Path, typer.Argument(help="folder with X_pair.csv and X_item.csv")],
    out: Out,
    language: Annotated[
        Literal["english", "chinese", "both"], typer.Option(help="title that is the text")
    ] = "english",
    force: Force = False,
) -> None:
    """Pairs are interactions; the English or Chinese title is the text."""
    with steps("reading", 2) as progress:
        pairs = _read(_find(source, "pair"), ["user_id", "item_id", "timestamp"])
        items = _read(_find(source, "item"), ["item_id", "title_chinese", "title_english"])
        columns = [c for c in items.columns[1:] if language in ("both", c.removeprefix("title_"))]
        step(progress, "writing")
        write_folder(out, items.select("item_id", *columns), pairs, force)


def _find(folder: Path, kind: str) -> Path:
    found = sorted(folder.glob(f"*_{kind}.csv"))
    if len(found) != 1:
        raise SnowdropError(f"{folder} must hold one file X_{kind}.csv; it holds {len(found)}")
    return found[0]


def _read(path: Path, columns: list[str]) -> pl.DataFrame:
    with reading(path, private="user_id" in columns):
        check_first_line(path)
        table = pl.scan_csv(path, has_header=False, infer_schema=False)
        frame = table.collect(engine="streaming")
    if frame.width < len(columns):
        raise SnowdropError(f"{path} has {frame.width} columns, expected {', '.join(columns)}")
    frame = frame[:, : len(columns)]
    frame.columns = columns
    header = {"user", "user_id", "item", "item_id", "id", "userid", "itemid"}
    headers = int((frame[columns[0]][0] or "").strip().lower() in header)
    ids = [name for name in columns if name in ("user_id", "item_id")]
    return checked(frame[headers:], path, *ids, first=1 + headers)
