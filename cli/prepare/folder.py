"""A data folder whose split stands in train, validation and test files."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from cli.prepare.output import Force, Out, write_folder
from client_app.interactions import interaction_files, read_interactions
from common.catalogue import find_table, read_table

FILE_SPLITS = {"train": "warm", "validation": "validation", "test": "test"}


def folder(
    source: Annotated[Path, typer.Argument(help="folder with items.csv and interactions")],
    out: Out,
    force: Force = False,
) -> None:
    """A folder with train, validation and test files: the split moves into items.csv."""
    items, interactions = read(source)
    write_folder(out, items, interactions, force)


def read(source: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Items, with the split that the files tell, and all interactions."""
    items = read_table(find_table(source, "items"))
    files = interaction_files(source)
    parts = [read_interactions([file]).cast(pl.String) for file in files]
    if len(files) > 1:
        named = [
            part.with_columns(pl.lit(split).alias("split"))
            for part, split in zip(parts, FILE_SPLITS.values(), strict=True)
        ]
        splits = pl.concat(named).select("item_id", "split").unique("item_id", keep="first")
        items = items.drop("split", strict=False)
        items = items.join(splits, on="item_id", how="inner", maintain_order="left")
    return items, pl.concat(parts)


def with_splits(source: Path, out: Path) -> Path:
    """``source`` itself, or ``out`` with the split of its train, validation and test files.

    Items that stand in none of the files are left out.
    """
    columns = read_table(find_table(source, "items")).columns
    if "split" in columns or not find_table(source, "train").exists():
        return source
    write_folder(out, *read(source), force=True, summary=False)
    return out
