"""A data folder whose split stands in train, validation and test files."""

import io
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from cli.prepare.images import ImagesFrom, images_of
from cli.prepare.output import Force, Out, checked, write_folder
from client_app.interactions import interaction_files, time_columns
from common.catalogue import collect_table, find_table, read_table, require_columns, scan_table
from common.demo import MARK
from common.durable import write_atomic
from common.errors import SnowdropError
from server_app.modality.file import read_matrix
from server_app.modality.image import FOLDER

FILE_SPLITS = {"train": "warm", "validation": "validation", "test": "test"}


def folder(
    source: Annotated[Path, typer.Argument(help="folder with items.csv and interactions")],
    out: Out,
    min_rating: Annotated[
        float | None,
        typer.Option(help="least number in the column 'rating' (default: every row counts)"),
    ] = None,
    images: ImagesFrom = None,
    force: Force = False,
) -> None:
    """A folder with train, validation and test files: the split moves into items.csv."""
    items, interactions = read(source, min_rating)
    with images_of(images, items["item_id"].to_list()) as found:
        write_folder(out, items, interactions, force, images=found)
    carry_features(source, out, images=found is None)


def read(source: Path, min_rating: float | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Items, with the split that the files tell, and all interactions with what tells their order.

    Parameters
    ----------
    source : Path
        A data folder.
    min_rating : float, optional
        The least rating that counts; every row counts without it.

    Raises
    ------
    SnowdropError
        If a file or a column is missing, an id is empty, or a rating is no number.
    """
    path = find_table(source, "items")
    items = read_table(path)
    require_columns(items.columns, path, "item_id")
    items = checked(items, path, "item_id")
    files = interaction_files(source)
    columns = ["user_id", "item_id", *time_columns(files)]
    parts = [_interactions(file, columns, min_rating) for file in files]
    if len(files) > 1:
        named = [
            part.with_columns(pl.lit(split).alias("split"))
            for part, split in zip(parts, FILE_SPLITS.values(), strict=True)
        ]
        splits = pl.concat(named).select("item_id", "split").unique("item_id", keep="first")
        items = items.drop("split", strict=False)
        items = items.join(splits, on="item_id", how="inner", maintain_order="left")
    return items, pl.concat(parts)


def _interactions(path: Path, columns: list[str], min_rating: float | None) -> pl.DataFrame:
    """Some columns of an interactions file, as strings, of the rows that count."""
    rating = [] if min_rating is None else ["rating"]
    scanned = scan_table(path, [*columns, *rating], private=True)
    rows = collect_table(scanned, path, private=True)
    least = 0.0 if min_rating is None else min_rating
    whole = checked(rows, path, "user_id", "item_id", rating="".join(rating), least=least)
    return whole.select(columns)


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


def carry_features(source: Path, out: Path, images: bool = True) -> None:
    """Copy what stands beside the items: features files and images, and whether all is generated.

    Rows of features are in the order of the items of ``out``.

    Parameters
    ----------
    source, out : Path
        Data folders.
    images : bool
        Whether images are copied.

    Raises
    ------
    SnowdropError
        If a features file cannot be read, or has not one row for each item of ``source``.
    """
    if images:
        _carry_images(source, out)
    (out / MARK).unlink(missing_ok=True)
    if (source / MARK).exists():
        shutil.copyfile(source / MARK, out / MARK)
    for path in source.glob("*.features.parquet"):
        shutil.copyfile(path, out / path.name)
    for path in source.glob("*.features.npy"):
        features = read_matrix(path)
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


def _carry_images(source: Path, out: Path) -> None:
    """Copy the folder of images, and what a column of the items names elsewhere in the folder."""
    if (source / FOLDER).is_dir():
        shutil.copytree(source / FOLDER, out / FOLDER, dirs_exist_ok=True)
    items = read_table(find_table(out, "items"))
    if "image" not in items.columns:
        return
    for name in items["image"].drop_nulls().str.strip_chars():
        inside = (source / name).resolve().is_relative_to(source.resolve())
        if name and inside and (source / name).is_file() and not (out / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, out / name)


def _ids(folder: Path) -> list[str]:
    return read_table(find_table(folder, "items"))["item_id"].str.strip_chars().to_list()
