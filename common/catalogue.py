"""The server's items: ids, texts, and which split each item is in."""

import csv
import hashlib
import re
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
NO_TEXT_COLUMNS = ("item_id", "split", "image", "has_image")
"""Columns of an items file that are no text of the item."""
CONTROL = r"\p{Cc}"
"""Pattern of the characters that no id may hold: they break files, logs and terminals."""


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

    @cached_property
    def warm_keys(self) -> np.ndarray:
        """A number for each warm item that depends on its id alone, uint64 (warm,)."""
        raw = b"".join(
            hashlib.blake2b(item.encode(), digest_size=8).digest() for item in self.ids_of("warm")
        )
        return np.frombuffer(raw, "<u8").astype(np.uint64)

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
    images: tuple[str, ...] = ()
    """The image file of each item as the column ``image`` has it, "" for none; empty without it."""
    file_rows: tuple[int, ...] = ()
    """The row of each item in the items file; empty where they are in this order."""

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


def read_table(
    path: Path, private: bool = False, ids: Sequence[str] = ("user_id", "item_id")
) -> pl.DataFrame:
    """A CSV or Parquet file with every column as strings; empty fields are null.

    Blanks around the names of columns are taken off.

    Parameters
    ----------
    path : Path
    private : bool
        Whether the file holds interactions: no error then quotes a cell or a column's name, since
        the first line of a file without a header is data.
    ids : Sequence[str]
        Names of the columns that hold ids, where the file has them.

    Raises
    ------
    SnowdropError
        If the file is missing, not UTF-8, or no table, or ids are neither strings nor integers.
    """
    return collect_table(scan_table(path, private=private, ids=ids), path, private)


def scan_table(
    path: Path,
    wanted: Sequence[str] | None = None,
    private: bool = False,
    ids: Sequence[str] = ("user_id", "item_id"),
) -> pl.LazyFrame:
    """`read_table`, to be read later by `collect_table`; only the ``wanted`` columns.

    Raises
    ------
    SnowdropError
        If the file is missing, no table, lacks a column, or has ids of a wrong type.
    """
    if path.is_dir():
        raise SnowdropError(f"{path} is a folder; expected a file")
    if not path.is_file():
        raise SnowdropError(f"{path} is missing")
    with reading(path, private):
        if path.suffix == ".parquet":
            table = pl.scan_parquet(path)
        else:
            check_first_line(path)
            table = pl.scan_csv(path, infer_schema=False)
        names = table.collect_schema().names()
        bare = [name.strip() for name in names]
        if bare != names and len(set(bare)) == len(bare):
            table = table.rename(dict(zip(names, bare, strict=True)))
        if wanted is not None:
            require_columns(bare, path, *wanted, private=private)
            table = table.select(wanted)
        for name, dtype in table.collect_schema().items():
            if name in ids and not (
                dtype.is_integer()
                or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Binary, pl.Null)
            ):
                raise SnowdropError(
                    f"{path}: column '{name}' holds {dtype}; ids must be strings or integers"
                )
            if dtype.is_nested() and not private:
                raise SnowdropError(f"{path}: column '{name}' holds {dtype}; expected strings")
        return table.cast(pl.String)


def collect_table(table: pl.LazyFrame, path: Path, private: bool = False) -> pl.DataFrame:
    """The rows of what was scanned from ``path``, read piece by piece.

    Raises
    ------
    SnowdropError
        If the file is not UTF-8, or no table.
    """
    with reading(path, private):
        return table.collect(engine="streaming")


@contextmanager
def reading(path: Path, private: bool = False) -> Iterator[None]:
    """Tell what is wrong with a file in one sentence; see `read_table` for ``private``."""
    try:
        yield
    except pl.exceptions.NoDataError as error:
        raise SnowdropError(f"{path} is empty: expected a header line and rows") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        reason: str | None = None
        if path.suffix != ".parquet":
            if (place := _not_utf8(path)) is not None:
                raise _no_text(path, place) from None
            reason = _misshapen_row(path)
        if reason is None:
            reason = _UNQUOTED if private else str(error).splitlines()[0]
        # The text of Polars' own errors may hold a cell, and a traceback shows causes.
        cause = None if private else error
        raise SnowdropError(f"{path} cannot be read as a table: {reason}") from cause


_LONE_CR = re.compile(rb"\r(?!\n)")
_UNQUOTED = "it cannot be opened, is damaged, or is not of the format that its name says"


def _no_text(path: Path, place: int) -> SnowdropError:
    return SnowdropError(
        f"{path} is not UTF-8 text: byte {place} cannot be decoded; save it as UTF-8"
    )


def _not_utf8(path: Path) -> int | None:
    """Place of the first byte that is not UTF-8, or None."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as bad:
        return bad.start
    except OSError:
        return None
    return None


def _misshapen_row(path: Path) -> str | None:
    """What is wrong with the first row of a CSV file that has a wrong shape, without its cells."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            width = 0
            for number, row in enumerate(rows, 1):
                width = width or len(row)
                if len(row) > width:
                    return f"row {number} has {len(row)} fields and the first row has {width}"
    except csv.Error:
        return f"the quotation marks of row {number + 1} are not in pairs"
    except (OSError, UnicodeDecodeError):
        return None
    return "a line ends in CR alone" if _LONE_CR.search(path.read_bytes()) else None


def check_first_line(path: Path) -> None:
    """Refuse a CSV file whose first line is no text, or whose lines end in CR alone.

    Raises
    ------
    SnowdropError
        That says what would be right.
    """
    with path.open("rb") as file:
        head = file.read(1 << 16)
    line, end, _ = head.partition(b"\n")
    if b"\0" in line:
        raise SnowdropError(f"{path} is not UTF-8 text: it holds NUL bytes; save it as UTF-8")
    try:
        line.decode("utf-8") if end else None
    except UnicodeDecodeError as bad:
        raise _no_text(path, bad.start) from None
    if not end and b"\r" in line:
        raise SnowdropError(
            f"the lines of {path} end in CR alone; save it with LF or CRLF line ends"
        )


def check_ids(frame: pl.DataFrame, path: Path, *columns: str, first: int = 2) -> None:
    """Refuse the first row whose id is empty or holds a control character.

    Rows without any field are blank lines and pass.

    Parameters
    ----------
    frame : DataFrame
        Every row of ``path``; all columns are strings.
    path : Path
    columns : str
        Names of the columns that hold ids.
    first : int
        Number of the first row: 2 below a header line.

    Raises
    ------
    SnowdropError
        With the row's number and no cell of it.
    """
    ids = [pl.col(column).str.strip_chars() for column in columns]
    faults = frame.select(
        empty=pl.any_horizontal(value.is_null() | (value == "") for value in ids)
        & ~pl.all_horizontal(pl.all().is_null()),
        control=pl.any_horizontal(value.str.contains(CONTROL) for value in ids).fill_null(False),
    )
    wrong = (faults["empty"] | faults["control"]).arg_true()
    if not len(wrong):
        return
    row, names = wrong[0], " or ".join(columns)
    what = "is empty" if faults["empty"][row] else "holds NUL or another control character"
    raise SnowdropError(f"{path}, row {row + first}: {names} {what}")


def find_table(folder: Path, name: str) -> Path:
    """``name.csv`` or, where only that is there, ``name.parquet``."""
    parquet = folder / f"{name}.parquet"
    csv = folder / f"{name}.csv"
    return parquet if parquet.exists() and not csv.exists() else csv


def require_columns(names: Sequence[str], path: Path, *columns: str, private: bool = False) -> None:
    """Raise a `SnowdropError` that tells the first of ``columns`` that is not once in ``names``.

    With ``private`` it tells none of the other ``names``; see `read_table`.
    """
    for column in columns:
        # Polars renames the second column of a CSV file that has the name of the first.
        if names.count(column) > 1 or f"{column}_duplicated_0" in names:
            raise SnowdropError(f"{path} has more than one column '{column}'")
        if column in names:
            continue
        if not private:
            there = ", ".join(n if n.isprintable() else ascii(n[:30]) for n in names)
            raise SnowdropError(f"{path} has no column '{column}' (it has: {there})")
        if path.suffix != ".parquet" and not set(columns) & set(names):
            quoted = " or ".join(f"'{name}'" for name in columns)
            raise SnowdropError(
                f"{path} has no column {quoted}: it seems to have no header line; expected a "
                f"first line with the columns' names, separated by commas: {','.join(columns)}"
            )
        raise SnowdropError(f"{path} has no column '{column}'; expected {', '.join(columns)}")


def read_catalogue(
    folder: Path, seed: int, text_columns: str = "", all_warm: bool = False
) -> Catalogue:
    """Items of a data folder, in the order of their ids.

    Parameters
    ----------
    folder : Path
        Holds ``items.csv`` or ``items.parquet``: ``item_id``, text columns (joined with ". "),
        optionally ``split``, and ``image`` with paths of image files in the folder.
    seed : int
        Of the 6:1:3 permutation where there is no ``split`` column.
    text_columns : str
        Names of the columns that are the items' text, separated by commas, in the order in which
        they are joined; empty: all columns but `NO_TEXT_COLUMNS`.
    all_warm : bool
        Make every item warm where there is no ``split`` column.

    Raises
    ------
    SnowdropError
        On a missing file or column, an empty or duplicate id or one with control characters, an
        item without text, an unknown split, or a split without a warm item.
    """
    path = find_table(folder, "items")
    frame = read_table(path)
    split_column = ["split"] if "split" in frame.columns else []
    require_columns(frame.columns, path, "item_id", *split_column)
    check_ids(frame, path, "item_id")
    texts_of = _text_columns(frame.columns, path, text_columns)
    if "split" not in frame.columns and find_table(folder, "train").exists():
        raise SnowdropError(
            f"{path} has no column 'split' though {folder} has a train file; "
            "`snowdrop prepare folder` writes one (`snowdrop simulate` does it by itself)"
        )
    frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    frame = frame.with_columns(pl.col("item_id", *split_column).str.strip_chars())
    file_rows = frame["item_id"].arg_sort()
    frame = frame[file_rows]
    ids = frame["item_id"]
    if (repeated := ids.filter(ids.is_duplicated())).len():
        raise SnowdropError(f"{path} has item_id '{repeated[0]}' more than once")
    texts = frame.select(
        pl.concat_str(
            [pl.col(name).str.strip_chars().replace("", None) for name in texts_of],
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
        split_names = ["warm"] * ids.len() if all_warm else random_split(ids.len(), seed)
    if "warm" not in split_names:
        raise SnowdropError(f"the split of {path} leaves no warm item: nothing can be trained")
    images: list[str] = []
    if "image" in frame.columns:
        images = frame["image"].fill_null("").str.strip_chars().to_list()
    return Catalogue(
        tuple(ids.to_list()),
        tuple(split_names),
        tuple(texts.to_list()),
        "split" in frame.columns,
        tuple(images),
        tuple(file_rows.to_list()),
    )


def _text_columns(names: Sequence[str], path: Path, wanted: str) -> list[str]:
    """The columns that are the items' text: those ``wanted``, or all that may be text."""
    there = [name for name in names if name not in NO_TEXT_COLUMNS]
    if not there:
        raise SnowdropError(f"{path} has no text column beside item_id")
    chosen = [name for part in wanted.split(",") if (name := part.strip())]
    for name in chosen:
        if name not in there:
            raise SnowdropError(
                f"text_columns names '{name}', and {path} has no such text column "
                f"(it has: {', '.join(there)})"
            )
    return chosen or there


def random_split(items: int, seed: int) -> list[str]:
    """A split name for each of ``items`` ids in sorted order, 6:1:3 by a seeded permutation."""
    warm, validation, _ = np.asarray(SPLIT_RATIO) / sum(SPLIT_RATIO)
    order = np.random.default_rng(seed).permutation(items)
    bounds = [int(warm * items), int((warm + validation) * items)]
    names = np.empty(items, dtype=object)
    for split, places in zip(SPLITS, np.split(order, bounds), strict=True):
        names[places] = split
    return names.tolist()
