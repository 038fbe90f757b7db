"""What every source ends in: a checked data folder, and a summary of it."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import polars as pl
import typer

from cli.progress import Progress
from common.catalogue import NO_TEXT_COLUMNS, check_ids, read_catalogue
from common.demo import MARK
from common.durable import write_atomic
from common.errors import SnowdropError
from common.task import ORDERS

if TYPE_CHECKING:
    from cli.prepare.images import Images

Out = Annotated[Path, typer.Option(help="the data folder to make")]
Force = Annotated[bool, typer.Option(help="replace a data folder that is there")]


@contextmanager
def steps(description: str, total: int) -> Iterator[Progress]:
    """The progress of ``total`` steps, of which the first is called ``description``."""
    with Progress("steps", total) as progress:
        progress.update(0, description)
        yield progress
        progress.update(total)


def step(progress: Progress, description: str) -> None:
    """One step of `steps` is done; the next one is called ``description``."""
    progress.update(progress.done + 1, description)


def k_core(interactions: pl.DataFrame, k: int) -> pl.DataFrame:
    """Interactions in which every user and every item has at least ``k``."""
    while k > 1:
        before = interactions.height
        for side in ("user_id", "item_id"):
            interactions = interactions.filter(pl.len().over(side) >= k)
        if interactions.height == before:
            break
    return interactions


def checked(
    frame: pl.DataFrame,
    path: Path,
    *ids: str,
    first: int = 2,
    rating: str = "",
    least: float = 0.0,
) -> pl.DataFrame:
    """The rows of a source's table, once all of them are known to be whole.

    Blank lines are left out, and blanks around ids taken off.

    Parameters
    ----------
    frame : DataFrame
        Every row of ``path``; all columns are strings.
    path : Path
    ids : str
        Names of the columns that hold ids.
    first : int
        Number of the first row: 2 below a header line.
    rating : str
        A column of numbers of which rows need at least ``least``; empty: none.
    least : float

    Raises
    ------
    SnowdropError
        If an id is empty or holds a control character, or a rating is no number; with the row's
        number and no cell of it.
    """
    check_ids(frame, path, *ids, first=first)
    blank = pl.all_horizontal(pl.all().is_null())
    kept = ~blank
    if rating:
        number = pl.col(rating).str.strip_chars().cast(pl.Float64, strict=False)
        bad = frame.select((~number.is_finite().fill_null(False) & ~blank).alias("bad"))["bad"]
        if bad.any():
            raise SnowdropError(
                f"{path}, row {bad.arg_true()[0] + first}: the rating in column '{rating}' is "
                "no number"
            )
        kept &= number >= least
    return frame.filter(kept).with_columns(pl.col(ids).str.strip_chars())


def split_lines(path: Path, separator: str, fields: int) -> pl.DataFrame:
    """A text file without a header, in the encoding of the older MovieLens sets.

    Returns
    -------
    DataFrame
        A row for each line, blank ones as nulls, and ``column_0`` to the last of ``fields``;
        further fields of a line are joined in one more column, ``rest``.

    Raises
    ------
    SnowdropError
        If the file is missing, or a line has too few fields.
    """
    if not path.is_file():
        raise SnowdropError(f"{path} is missing")
    rows: list[list[str | None]] = []
    for number, line in enumerate(path.read_text(encoding="latin-1").split("\n"), 1):
        found = line.split(separator, fields)
        if not line.strip():
            rows.append([None] * (fields + 1))
        elif len(found) < fields:
            raise SnowdropError(
                f"{path}, row {number}: it has {len(found)} fields, expected {fields} "
                f"with {separator!r} between them"
            )
        else:
            rows.append([*found, *([""] * (fields + 1 - len(found)))])
    names = [*(f"column_{k}" for k in range(fields)), "rest"]
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def write_folder(
    out: Path,
    items: pl.DataFrame,
    interactions: pl.DataFrame,
    force: bool,
    summary: bool = True,
    images: "Images | None" = None,
) -> None:
    """Write ``items.csv`` and ``interactions.csv``, both or neither, and say what is in them.

    Items that nobody interacted with, items without a text and interactions with such items are
    left out and counted. A repeated interaction counts once, at its first time.

    Parameters
    ----------
    out : Path
    items : DataFrame
        ``item_id``, text columns, optionally ``split``; all strings, ids `checked`.
    interactions : DataFrame
        ``user_id``, ``item_id``, both `checked`; further columns are kept.
    force : bool
        Replace files that are there.
    summary : bool
        Print what was written.
    images : Images, optional
        They are copied, and a column ``image`` names them.

    Raises
    ------
    SnowdropError
        If the folder is taken, or nothing is left to write.
    """
    taken = [n for n in ("items.csv", "interactions.csv", "train.csv") if (out / n).exists()]
    if taken and not force:
        raise SnowdropError(f"{out / taken[0]} exists; give --force to replace it")
    texts = [name for name in items.columns if name not in NO_TEXT_COLUMNS]
    items = items.with_columns(
        pl.col(name).str.replace_all(r"\s+", " ").str.strip_chars() for name in texts
    )
    with_text = items.filter(pl.any_horizontal(pl.col(texts).fill_null("") != ""))
    interactions = _first_of_each(interactions)
    kept = interactions.join(with_text.select("item_id"), on="item_id", how="semi")
    used = with_text.join(kept.select("item_id").unique(), on="item_id", how="semi")
    if not used.height:
        raise SnowdropError("no item is left that has a text and an interaction")
    if images:
        names = images.names()
        column = pl.Series("image", [names.get(item, "") for item in used["item_id"]], pl.String)
        used = used.with_columns(column)
    with tempfile.TemporaryDirectory() as scratch:
        used.write_csv(Path(scratch) / "items.csv")
        try:
            catalogue = read_catalogue(Path(scratch), seed=0)
        except SnowdropError as error:
            raise SnowdropError(str(error).replace(scratch, str(out))) from error
    if images:
        images.write(out, used["item_id"])
    for name, frame in (("items.csv", used), ("interactions.csv", kept)):
        buffer = io.BytesIO()
        frame.write_csv(buffer)
        write_atomic(out / name, buffer.getvalue())
    for stale in ("train.csv", "validation.csv", "test.csv", MARK):
        (out / stale).unlink(missing_ok=True)
    if not summary:
        return
    users = kept["user_id"].n_unique()
    typer.echo(f"{out}: {used.height} items, {users} users, {kept.height} interactions")
    for count, what in (
        (items.height - with_text.height, "items without a text"),
        (with_text.height - used.height, "items that nobody interacted with"),
        (interactions.height - kept.height, "interactions with items that have no text"),
    ):
        if count:
            typer.echo(f"left out: {count} {what}")
    if images:
        shown = (used["image"] != "").sum()
        typer.echo(f"images: {shown} of {used.height} items have one")
        if images.strange:
            typer.echo(f"left out: {images.strange} images that are named like no item")
    typer.echo(f"an item's text, for example: {catalogue.texts[0][:100]!r}")


def _first_of_each(interactions: pl.DataFrame) -> pl.DataFrame:
    """Each pair once, the first one by time where there is a column of it, else of the rows."""
    pair = ["user_id", "item_id"]
    order = next((name for name in ORDERS if name in interactions.columns), None)
    if order is None:
        return interactions.unique(pair, keep="first", maintain_order=True)
    time = pl.col(order).cast(pl.Float64, strict=False)
    rows = interactions.with_row_index("row").sort(time, nulls_last=True, maintain_order=True)
    return rows.unique(pair, keep="first", maintain_order=True).sort("row").drop("row")
