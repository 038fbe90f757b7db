"""A data folder whose split stands in train, validation and test files."""

import io
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from cli.prepare.output import Force, Out, checked, write_folder
from client_app.interactions import interaction_files, read_interactions
from common.catalogue import find_table, read_table, require_columns
from common.durable import write_atomic
from common.errors import SnowdropError

FILE_SPLITS = {"train": "warm", "validation": "validation", "test": "test"}


def folder(
    source: Annotated[Path, typer.Argument(help="folder with items.csv and interactions")],
    out: Out,
    force: Force = False,
) -> None:
    """A folder with train, validation and test files: the split moves into items.csv."""
    items, interactions = read(source)
    write_folder(out, items, interactions, force)
    carry_features(source, out)


def read(source: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Items, with the split that the files tell, and all interactions."""
    path = find_table(source, "items")
    items = read_table(path)
    require_columns(items.columns, path, "item_id")
    items = checked(items, path, "item_id")
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
    carry_features(source, out)
    return out


def carry_features(source: Path, out: Path) -> None:
    """Copy features files and images beside the items of ``out``, rows in the order of its items.

    Raises
    ------
    SnowdropError
        If a features file does not have one row for each item of ``source``.
    """
    if (source / "images").is_dir():
        shutil.copytree(source / "images", out / "images", dirs_exist_ok=True)
    for path in source.glob("*.features.parquet"):
        shutil.copyfile(path, out / path.name)
    for path in source.glob("*.features.npy"):
        features = np.load(path, allow_pickle=False)
        before, after = _ids(source), _ids(out)
        if len(features) != len(before):
            raise SnowdropError(
                f"{path} has {len(features)} rows and the items file {len(before)}; give one row "
                "for each item, in the same order"
            )
        row_of = {item: row for row, item in enumerate(before)}
        buffer = io.BytesIO()
        np.save(buffer, features[[row_of[item] for item in after]])
        write_atomic(out / path.name, buffer.getvalue())


def _ids(folder: Path) -> list[str]:
    return read_table(find_table(folder, "items"))["item_id"].str.strip_chars().to_list()
