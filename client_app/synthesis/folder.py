"""A folder of synthetic users: the interactions of a data folder, and the mark that they are none.

``interactions.csv`` has the columns ``user_id`` and ``item_id``, as that of any data folder.
``summary.json`` says ``"synthetic": true``, what they cost real users (``"epsilon"``, a number or
null), and whatever else their maker tells.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from scipy.sparse import csr_array

from client_app.interactions import read_interactions
from common.durable import write_atomic
from common.errors import FormatError, SnowdropError
from common.users.synthetic import NAME_DIGITS

INTERACTIONS = "interactions.csv"
SUMMARY = "summary.json"
MARK = "synthetic"
FORMAT = 1
"""Of ``summary.json``."""


@dataclass(frozen=True, eq=False)
class SyntheticFolder:
    """What a folder of synthetic users holds.

    Parameters
    ----------
    rows : DataFrame
        ``user_id``, ``item_id``.
    summary : Mapping[str, Any]
    name : str
        A digest of the interactions.
    """

    rows: pl.DataFrame
    summary: Mapping[str, Any]
    name: str

    @property
    def epsilon(self) -> float | None:
        """ε of the whole set, as its maker stated it."""
        told = self.summary.get("epsilon")
        return None if told is None else float(told)


def write_synthetic(
    folder: Path, likes: csr_array, items: Sequence[str], summary: Mapping[str, Any]
) -> None:
    """Write a folder of synthetic users; the mark comes last, so that half a folder has none.

    Parameters
    ----------
    folder : Path
    likes : csr_array, bool (users, items)
    items : Sequence[str]
        Ids of the columns.
    summary : Mapping[str, Any]
        What ``summary.json`` holds beside the mark; with ``epsilon``.

    Raises
    ------
    SnowdropError
        If the folder cannot be written to.
    """
    (folder / SUMMARY).unlink(missing_ok=True)
    width = len(str(max(likes.shape[0] - 1, 0)))
    users, columns = likes.nonzero()
    ids = [f"{MARK}-{user:0{width}d}" for user in range(likes.shape[0])]
    frame = pl.DataFrame(
        {
            "user_id": pl.Series(ids, dtype=pl.String).gather(users),
            "item_id": pl.Series(list(items), dtype=pl.String).gather(columns),
        }
    )
    buffer = io.BytesIO()
    frame.write_csv(buffer)
    write_atomic(folder / INTERACTIONS, buffer.getvalue())
    told = {"format": FORMAT, MARK: True, "epsilon": None, **summary}
    write_atomic(folder / SUMMARY, json.dumps(told, indent=2).encode())


def read_synthetic(folder: Path) -> SyntheticFolder:
    """What a folder of synthetic users holds.

    Raises
    ------
    SnowdropError
        If it is missing, damaged or of a later release, or it does not say that its users are
        synthetic.
    """
    summary = read_mark(folder)
    path = folder / INTERACTIONS
    rows = read_interactions([path])
    name = hashlib.sha256(path.read_bytes()).hexdigest()[:NAME_DIGITS]
    return SyntheticFolder(rows, summary, name)


def read_mark(folder: Path) -> dict[str, Any]:
    """``summary.json`` of a folder of synthetic users.

    Raises
    ------
    SnowdropError
        As `read_synthetic`.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SnowdropError(
            f"{folder} is no folder of synthetic users, since it has no {SUMMARY}; `snowdrop "
            "synthesize` makes one"
        ) from error
    except (OSError, ValueError) as error:
        raise SnowdropError(f"{path} cannot be read as JSON") from error
    if not isinstance(summary, dict) or summary.get(MARK) is not True:
        raise SnowdropError(
            f"{path} does not say that its users are synthetic; `snowdrop synthesize` makes a "
            "folder that does"
        )
    if summary.get("format", FORMAT) > FORMAT:
        raise FormatError(f"{path} is of a later release; upgrade this node")
    epsilon = summary.get("epsilon")
    if epsilon is not None and not (isinstance(epsilon, int | float) and epsilon > 0):
        raise SnowdropError(f"{path} has epsilon = {epsilon!r}, which must be above 0, or null")
    return summary
