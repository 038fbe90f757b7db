"""Features that the data folder brings: ``NAME.features.npy`` or ``NAME.features.parquet``."""

import logging
from pathlib import Path

import numpy as np

from common.catalogue import Catalogue
from common.errors import SnowdropError

log = logging.getLogger("snowdrop")

SUFFIXES = (".npy", ".parquet")


def features_file(folder: Path | None, name: str) -> Path | None:
    """The features file of a modality in the data folder, or None.

    Raises
    ------
    SnowdropError
        If there is one of each kind.
    """
    if folder is None or Path(name).name != name:
        return None
    found = [p for s in SUFFIXES if (p := folder / f"{name}.features{s}").is_file()]
    if len(found) > 1:
        raise SnowdropError(f"{folder} has {found[0].name} and {found[1].name}: keep one of them")
    return found[0] if found else None


def read_features(path: Path, catalogue: Catalogue) -> np.ndarray:
    """The features of all items from a file.

    Parameters
    ----------
    path : Path
        ``.npy``: a matrix (items, c) whose rows are in the order of the items file's rows.
        ``.parquet``: a column ``item_id`` and c columns of numbers, in any order of rows; items
        that are not in the catalogue are left out.
    catalogue : Catalogue

    Returns
    -------
    ndarray, float32 (items, c)
        In the order of the catalogue.

    Raises
    ------
    SnowdropError
        If the file cannot be read, has another number of rows, an item twice or not at all, or
        anything but finite numbers.
    """
    features = _read_npy(path, catalogue) if path.suffix == ".npy" else _read_ids(path, catalogue)
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise SnowdropError(
            f"{path} has {len(broken)} items with NaN, infinite or missing numbers, the first is "
            f"'{catalogue.ids[broken[0]]}'; give finite float32 numbers, zeros where there are none"
        )
    return features


def read_matrix(path: Path) -> np.ndarray:
    """A matrix of numbers that `numpy.save` wrote, of any type of number, (rows, c).

    Raises
    ------
    SnowdropError
        If it cannot be read, or is no such matrix.
    """
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SnowdropError(
            f"{path} cannot be read: expected a matrix of numbers that numpy.save wrote"
        ) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or not matrix.shape[1]:
        raise SnowdropError(
            f"{path} has the shape {getattr(matrix, 'shape', None)}; expected a matrix with one "
            "row per item and at least one column"
        )
    if matrix.dtype.kind not in "fiub":
        raise SnowdropError(f"{path} holds {matrix.dtype}; expected numbers, for example float32")
    return matrix


def _read_npy(path: Path, catalogue: Catalogue) -> np.ndarray:
    matrix = read_matrix(path)
    if len(matrix) != len(catalogue.ids):
        raise SnowdropError(
            f"{path} has {len(matrix)} rows and the items file {len(catalogue.ids)}; expected one "
            "row per item, in the order of the items file"
        )
    rows = np.asarray(catalogue.file_rows or range(len(catalogue.ids)), np.int64)
    return _float32(matrix[rows])


def _read_ids(path: Path, catalogue: Catalogue) -> np.ndarray:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SnowdropError(f"{path} cannot be read as a Parquet file") from error
    if "item_id" not in frame.columns:
        raise SnowdropError(f"{path} has no column 'item_id', which tells whose features they are")
    numbers = frame.drop("item_id")
    if not numbers.width:
        raise SnowdropError(f"{path} has no column of numbers beside item_id")
    for name, kind in numbers.schema.items():
        if not (kind.is_numeric() or kind == pl.Boolean):
            raise SnowdropError(
                f"{path}: column '{name}' holds {kind}; expected one number per item in each column"
            )
    ids = frame["item_id"].cast(pl.String).str.strip_chars()
    if blank := int((ids.is_null() | (ids == "")).sum()):
        raise SnowdropError(f"{path} has {blank} rows without an item_id")
    if (repeated := ids.filter(ids.is_duplicated())).len():
        raise SnowdropError(f"{path} has item_id '{repeated[0]}' more than once")
    place = {item: row for row, item in enumerate(ids)}
    missing = [item for item in catalogue.ids if item not in place]
    if missing:
        raise SnowdropError(
            f"{path} has no row for {len(missing)} items of the catalogue, the first is "
            f"'{missing[0]}'; give every item a row"
        )
    if unused := len(place) - len(catalogue.ids):
        log.info("%s has %d rows of items that are not in the catalogue", path, unused)
    rows = [place[item] for item in catalogue.ids]
    return _float32(numbers[rows].cast(pl.Float64).to_numpy())


def _float32(matrix: np.ndarray) -> np.ndarray:
    """As float32; what is too large becomes infinite, which the caller refuses."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(matrix, np.float32)
