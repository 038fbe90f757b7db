"""The server's items: ids, texts, and which split each item is in."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from common.errors import SnowdropError

SPLITS = ("warm", "validation", "test")
COLD_SPLITS = ("validation", "test")
SPLIT_RATIO = (6, 1, 3)


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """What a node knows of the catalogue: every item id with its split, in row order.

    The row of a warm item in the item table is its place among the warm ids; that of a cold item
    in the cold table is its place among the ids of its split.
    """

    ids: tuple[str, ...]
    splits: tuple[str, ...]

    @cached_property
    def version(self) -> str:
        """Digest of ids, splits and their order."""
        digest = hashlib.sha256()
        for item, split in zip(self.ids, self.splits, strict=True):
            digest.update(f"{len(item)}:{item}{split};".encode())
        return digest.hexdigest()[:16]

    def rows(self, split: str) -> np.ndarray:
        """Places of the items of ``split`` in the catalogue, int64 (items of the split,)."""
        return np.flatnonzero(np.asarray(self.splits) == split)

    def ids_of(self, split: str) -> list[str]:
        """Ids of the items of ``split``, in row order."""
        return [item for item, of in zip(self.ids, self.splits, strict=True) if of == split]

    def frame(self) -> pl.DataFrame:
        """``item_id``, ``split`` and ``row`` within the split."""
        return pl.DataFrame(
            {"item_id": self.ids, "split": self.splits},
            schema={"item_id": pl.String, "split": pl.String},
        ).with_columns(pl.int_range(pl.len(), dtype=pl.Int64).over("split").alias("row"))


@dataclass(frozen=True, eq=False)
class Catalogue(ItemIndex):
    """The items with their texts."""

    texts: tuple[str, ...]
    split_given: bool = True
    """Whether the data folder says the split, or it was drawn."""

    def index(self) -> ItemIndex:
        """What may be announced to nodes."""
        return ItemIndex(self.ids, self.splits)

    def grown_from(self, former: ItemIndex, training: bool = True) -> Self:
        """These items, with the split of a training that began with ``former``.

        What was warm stays warm. All others are what the data folder says or, where it does not,
        what they were; new ones are test items. Only ``training`` turns items warm.
        """
        was = dict(zip(former.ids, former.splits, strict=True))

        def now(item: str, given: str) -> str:
            before = was.get(item, "test")
            if before == "warm" or not self.split_given:
                return before
            return given if training or given != "warm" else before

        return replace(self, splits=tuple(map(now, self.ids, self.splits)))

    def with_warm(self, rows: np.ndarray) -> Self:
        """These items, those in ``rows`` of the catalogue warm from now on."""
        splits = np.asarray(self.splits, dtype=object)
        splits[rows] = "warm"
        return replace(self, splits=tuple(splits))


def read_table(path: Path) -> pl.DataFrame:
    """A CSV or Parquet file with every column as strings; empty fields are null.

    Raises
    ------
    SnowdropError
        If the file is missing, not UTF-8, or no table.
    """
    return collect_table(scan_table(path), path)


def scan_table(path: Path, wanted: Sequence[str] | None = None) -> pl.LazyFrame:
    """`read_table`, to be read later by `collect_table`; only the ``wanted`` columns.

    Raises
    ------
    SnowdropError
        If the file is missing, no table, or lacks a column.
    """
    if not path.is_file():
        raise SnowdropError(f"{path} is missing")
    with _reading(path):
        if path.suffix == ".parquet":
            table = pl.scan_parquet(path)
        else:
            table = pl.scan_csv(path, infer_schema=False)
        if wanted is not None:
            require_columns(table.collect_schema().names(), path, *wanted)
            table = table.select(wanted)
        return table.cast(pl.String)


def collect_table(table: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """The rows of what was scanned from ``path``, read piece by piece.

    Raises
    ------
    SnowdropError
        If the file is not UTF-8, or no table.
    """
    with _reading(path):
        return table.collect(engine="streaming")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell what is wrong with a file in one sentence."""
    try:
        yield
    except pl.exceptions.NoDataError as error:
        raise SnowdropError(f"{path} is empty: expected a header line and rows") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        if path.suffix != ".parquet" and (place := _not_utf8(path)) is not None:
            raise SnowdropError(
                f"{path} is not UTF-8 text: byte {place} cannot be decoded; save it as UTF-8"
            ) from error
        reason = str(error).splitlines()[0]
        raise SnowdropError(f"{path} cannot be read as a table: {reason}") from error


def _not_utf8(path: Path) -> int | None:
    """Place of the first byte that is not UTF-8, or None."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as bad:
        return bad.start
    return None


def find_table(folder: Path, name: str) -> Path:
    """``name.csv`` or, where only that is there, ``name.parquet``."""
    parquet = folder / f"{name}.parquet"
    csv = folder / f"{name}.csv"
    return parquet if parquet.exists() and not csv.exists() else csv


def require_columns(names: Sequence[str], path: Path, *columns: str) -> None:
    """Raise a `SnowdropError` that tells the first of ``columns`` that is not among ``names``."""
    for column in columns:
        if column not in names:
            there = ", ".join(n if n.isprintable() else ascii(n[:30]) for n in names)
            raise SnowdropError(f"{path} has no column '{column}' (it has: {there})")


def read_catalogue(folder: Path, seed: int) -> Catalogue:
    """Items of a data folder, in the order of their ids.

    Parameters
    ----------
    folder : Path
        Holds ``items.csv`` or ``items.parquet``: ``item_id``, text columns (joined with ". "),
        optionally ``split``.
    seed : int
        Of the 6:1:3 permutation where there is no ``split`` column.

    Raises
    ------
    SnowdropError
        On a missing file or column, a duplicate id, an item without text, an unknown split, or
        a split without a warm item.
    """
    path = find_table(folder, "items")
    frame = read_table(path)
    require_columns(frame.columns, path, "item_id")
    text_columns = [name for name in frame.columns if name not in ("item_id", "split")]
    if not text_columns:
        raise SnowdropError(f"{path} has no text column beside item_id")
    if "split" not in frame.columns and find_table(folder, "train").exists():
        raise SnowdropError(
            f"{path} has no column 'split' though {folder} has a train file; "
            "`snowdrop prepare folder` writes one (`snowdrop simulate` does it by itself)"
        )
    frame = frame.with_columns(pl.col("item_id").str.strip_chars()).sort("item_id")
    ids = frame["item_id"]
    if blank := int((ids.is_null() | (ids == "")).sum()):
        raise SnowdropError(f"{path} has {blank} rows without an item_id")
    if (repeated := ids.filter(ids.is_duplicated())).len():
        raise SnowdropError(f"{path} has item_id '{repeated[0]}' more than once")
    texts = frame.select(
        pl.concat_str(
            [pl.col(name).str.strip_chars().replace("", None) for name in text_columns],
            separator=". ",
            ignore_nulls=True,
        ).alias("text")
    )["text"]
    empty = ids.filter(texts == "")
    if empty.len():
        raise SnowdropError(
            f"{path} has {empty.len()} items without any text, the first is '{empty[0]}'; "
            "give them a text or leave them out"
        )
    if "split" in frame.columns:
        splits = frame["split"]
        unknown = frame.filter(~pl.col("split").is_in(SPLITS) | pl.col("split").is_null())
        if unknown.height:
            row = unknown.row(0, named=True)
            raise SnowdropError(
                f"{path}: item '{row['item_id']}' has split '{row['split'] or ''}'; "
                f"it must be one of {', '.join(SPLITS)}"
            )
        split_names = splits.to_list()
    else:
        split_names = random_split(ids.len(), seed)
    if "warm" not in split_names:
        raise SnowdropError(f"the split of {path} leaves no warm item: nothing can be trained")
    return Catalogue(
        tuple(ids.to_list()), tuple(split_names), tuple(texts.to_list()), "split" in frame.columns
    )


def random_split(items: int, seed: int) -> list[str]:
    """A split name for each of ``items`` ids in sorted order, 6:1:3 by a seeded permutation."""
    warm, validation, _ = np.asarray(SPLIT_RATIO) / sum(SPLIT_RATIO)
    order = np.random.default_rng(seed).permutation(items)
    bounds = [int(warm * items), int((warm + validation) * items)]
    names = np.empty(items, dtype=object)
    for split, places in zip(SPLITS, np.split(order, bounds), strict=True):
        names[places] = split
    return names.tolist()
