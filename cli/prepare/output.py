"""What every source ends in: a checked data folder, and a summary of it."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from common.catalogue import read_catalogue
from common.durable import write_atomic
from common.errors import SnowdropError

Out = Annotated[Path, typer.Option(help="the data folder to make")]
Force = Annotated[bool, typer.Option(help="replace a data folder that is there")]

console = Console(stderr=True)


@contextmanager
def steps(description: str, total: int) -> Iterator[Progress]:
    """A progress bar of ``total`` steps, with a spinner for long ones."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        progress.add_task(description, total=total)
        yield progress


def step(progress: Progress, description: str) -> None:
    """One step of `steps` is done; the next one is called ``description``."""
    progress.advance(progress.task_ids[0])
    progress.update(progress.task_ids[0], description=description)


def k_core(interactions: pl.DataFrame, k: int) -> pl.DataFrame:
    """Interactions in which every user and every item has at least ``k``."""
    while k > 1:
        before = interactions.height
        for side in ("user_id", "item_id"):
            interactions = interactions.filter(pl.len().over(side) >= k)
        if interactions.height == before:
            break
    return interactions


def at_least(frame: pl.DataFrame, column: str, least: float) -> pl.DataFrame:
    """Rows whose ``column`` is a number of at least ``least``.

    Raises
    ------
    SnowdropError
        If a value is no number.
    """
    numbers = frame[column].cast(pl.Float64, strict=False)
    if numbers.null_count():
        row = int(numbers.is_null().arg_max() or 0)
        raise SnowdropError(f"row {row + 1}: {column} is {frame[column][row]!r}, no number")
    return frame.filter(numbers >= least)


def write_folder(
    out: Path, items: pl.DataFrame, interactions: pl.DataFrame, force: bool, summary: bool = True
) -> None:
    """Write ``items.csv`` and ``interactions.csv``, both or neither, and say what is in them.

    Items that nobody interacted with, items without a text and interactions with such items are
    left out and counted.

    Parameters
    ----------
    out : Path
    items : DataFrame
        ``item_id``, text columns, optionally ``split``; all strings.
    interactions : DataFrame
        ``user_id``, ``item_id``, further columns kept.
    force : bool
        Replace files that are there.
    summary : bool
        Print what was written.

    Raises
    ------
    SnowdropError
        If the folder is taken, or nothing is left to write.
    """
    taken = [n for n in ("items.csv", "interactions.csv", "train.csv") if (out / n).exists()]
    if taken and not force:
        raise SnowdropError(f"{out / taken[0]} exists; give --force to replace it")
    texts = [name for name in items.columns if name not in ("item_id", "split")]
    items = items.with_columns(
        pl.col(name).str.replace_all(r"\s+", " ").str.strip_chars() for name in texts
    )
    with_text = items.filter(pl.any_horizontal(pl.col(texts).fill_null("") != ""))
    interactions = interactions.unique(subset=["user_id", "item_id"], maintain_order=True)
    kept = interactions.join(with_text.select("item_id"), on="item_id", how="semi")
    used = with_text.join(kept.select("item_id").unique(), on="item_id", how="semi")
    if not used.height:
        raise SnowdropError("no item is left that has a text and an interaction")
    with tempfile.TemporaryDirectory() as scratch:
        used.write_csv(Path(scratch) / "items.csv")
        try:
            catalogue = read_catalogue(Path(scratch), seed=0)
        except SnowdropError as error:
            raise SnowdropError(str(error).replace(scratch, str(out))) from error
    for name, frame in (("items.csv", used), ("interactions.csv", kept)):
        buffer = io.BytesIO()
        frame.write_csv(buffer)
        write_atomic(out / name, buffer.getvalue())
    for stale in ("train.csv", "validation.csv", "test.csv"):
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
    typer.echo(f"an item's text, for example: {catalogue.texts[0][:100]!r}")
