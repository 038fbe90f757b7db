"""A data folder whose split stands in train, validation and test files."""

from pathlib import Path

import polars as pl

from common.catalogue import find_table, read_table
from client_app.interactions import interaction_files, read_interactions

FILE_SPLITS = {"train": "warm", "validation": "validation", "test": "test"}


def with_splits(folder: Path, out: Path) -> Path:
    """A folder whose ``items.csv`` tells every item's split: ``folder`` itself, or a copy.

    Where interactions come as ``train``, ``validation`` and ``test`` files, an item's split is
    that of the file it stands in, and items that stand in none are left out.
    """
    path = find_table(folder, "items")
    items = read_table(path)
    if "split" in items.columns or not find_table(folder, "train").exists():
        return folder
    files = interaction_files(folder)
    parts = [
        read_interactions([file]).with_columns(pl.lit(split).alias("split"))
        for file, split in zip(files, FILE_SPLITS.values(), strict=True)
    ]
    everything = pl.concat(parts)
    splits = everything.select("item_id", "split").unique(subset="item_id", keep="first")
    out.mkdir(parents=True, exist_ok=True)
    items.join(splits, on="item_id", how="inner").write_csv(out / "items.csv")
    everything.select("user_id", "item_id").write_csv(out / "interactions.csv")
    return out
