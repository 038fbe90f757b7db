"""A data folder's interactions as matrices: all users of a silo, or users cut into parts.

SDRM's published splits cut users, not items: ``train.csv``, ``test.csv`` and ``validation.csv``
with a column ``liked`` (1: rated above three; 0: rated three or less).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from client_app.interactions import interaction_files, read_interactions
from common.catalogue import collect_table, find_table, scan_table
from common.errors import SnowdropError

LIKED = "liked"


@dataclass(frozen=True, eq=False)
class UserTable:
    """Users with their interactions; ids are in the order of rows and columns.

    Parameters
    ----------
    users, items : tuple[str, ...]
    likes, rated : csr_array, bool (users, items)
        What users liked, and what they rated, liked or not.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    likes: csr_array
    rated: csr_array


def read_users(source: Path) -> UserTable:
    """All users of a data folder, whatever it is split by, or of one interactions file.

    Items are those that somebody has rated, sorted as numbers where all ids are numbers.

    Raises
    ------
    SnowdropError
        If the folder or a file of it is missing or cannot be read, or nobody is in it.
    """
    if source.is_file():
        files = [source]
    elif source.is_dir():
        files = interaction_files(source)
    else:
        raise SnowdropError(
            f"{source} is not there; give a data folder (`snowdrop prepare` makes one) or an "
            "interactions file"
        )
    rows = pl.concat([_rows(path) for path in files])
    return _tables([rows], source)[0]


def read_user_splits(folder: Path) -> tuple[UserTable, UserTable, UserTable]:
    """Users for training, test and validation, with the same items as columns.

    Raises
    ------
    SnowdropError
        If a file is missing or cannot be read, users stand in two parts, or a part is empty.
    """
    paths = [find_table(folder, name) for name in ("train", "test", "validation")]
    for path in paths:
        if not path.exists():
            raise SnowdropError(
                f"{path} is missing: bench-synthetic reads train, test and validation, which cut "
                "the users, not the items"
            )
    train, test, validation = _tables([_rows(path) for path in paths], folder)
    for one, other in ((train, test), (train, validation), (test, validation)):
        if both := set(one.users) & set(other.users):
            raise SnowdropError(
                f"{folder}: {len(both)} users stand in two of train, test and validation; its "
                "files must cut the users, not the items"
            )
    return train, test, validation


def _rows(path: Path) -> pl.DataFrame:
    """Columns ``user_id``, ``item_id`` and ``liked`` of an interactions file; no cell in errors."""
    frame = read_interactions([path]).cast(pl.String)
    if LIKED not in scan_table(path, private=True).collect_schema().names():
        return frame.with_columns(pl.lit(True).alias(LIKED))
    fields = scan_table(path, ("user_id", "item_id", LIKED), private=True)
    fields = fields.select(pl.all().str.strip_chars())
    whole = collect_table(fields.filter(~pl.all_horizontal(pl.all().is_null())), path, private=True)
    strange = ~whole[LIKED].is_in(["0", "1"])
    if strange.any() or whole[LIKED].null_count():
        raise SnowdropError(f"{path}: the column '{LIKED}' must hold 0 or 1 in every row")
    return whole.with_columns(pl.col(LIKED) == "1")


def _tables(parts: Sequence[pl.DataFrame], folder: Path) -> list[UserTable]:
    items = _ordered(pl.concat([rows["item_id"] for rows in parts]))
    places = pl.DataFrame({"item_id": items}).with_row_index("column")
    tables = []
    for rows in parts:
        if not rows.height:
            raise SnowdropError(f"{folder}: the interactions, or a part of them, have no users")
        users = _ordered(rows["user_id"])
        numbers = pl.DataFrame({"user_id": users}).with_row_index("row")
        placed = rows.join(places, on="item_id").join(numbers, on="user_id")
        shape = (len(users), len(items))
        tables.append(
            UserTable(
                tuple(users),
                tuple(items),
                _matrix(placed.filter(LIKED), shape),
                _matrix(placed, shape),
            )
        )
    return tables


def _ordered(ids: pl.Series) -> pl.Series:
    found = ids.unique()
    numbers = found.cast(pl.Int64, strict=False)
    return found.gather(numbers.arg_sort()) if not numbers.null_count() else found.sort()


def _matrix(rows: pl.DataFrame, shape: tuple[int, int]) -> csr_array:
    pairs = rows.select("row", "column").unique(maintain_order=True)
    ones = np.ones(pairs.height, dtype=bool)
    matrix = csr_array((ones, (pairs["row"].to_numpy(), pairs["column"].to_numpy())), shape=shape)
    matrix.sort_indices()
    return matrix
