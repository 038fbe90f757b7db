"""The lists that a node keeps of what it recommended; read without the tensors that made them."""

import io
from pathlib import Path

import polars as pl

from common.durable import write_atomic
from common.errors import SnowdropError

FILE = "recommendations.parquet"


def read_recommendations(folder: Path, user: str) -> pl.DataFrame | None:
    """A user's kept list, best first, or None where this node does not have that user.

    Raises
    ------
    SnowdropError
        If the node has not kept any recommendations yet, or their file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        raise SnowdropError(f"{path} is missing: no recommendations were made here yet")
    try:
        frame = pl.scan_parquet(path).filter(pl.col("user_id") == user).sort("rank").collect()
    except (pl.exceptions.PolarsError, OSError):
        # Polars' own text may hold the user's id, and a traceback shows causes.
        raise SnowdropError(
            f"{path} is damaged; the node writes it anew at the end of its next run"
        ) from None
    return frame if frame.height else None


def forget_recommendations(folder: Path, user: str | None = None) -> bool:
    """Delete the kept lists, or that of one user; whether there was one.

    Raises
    ------
    SnowdropError
        If the folder cannot be written to.
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError):
        frame = None  # damaged: the list of this user may be in it
    if user is None or frame is None:
        path.unlink()
        return True
    staying = frame.filter(pl.col("user_id") != user)
    if staying.height == frame.height:
        return False
    keep(staying, path)
    return True


def keep(lists: pl.DataFrame, path: Path) -> None:
    """Replace what is kept in ``path``."""
    buffer = io.BytesIO()
    lists.write_parquet(buffer)
    write_atomic(path, buffer.getvalue())
