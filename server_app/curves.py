"""Curves for TensorBoard, written while a run goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import SnowdropError


class Curves:
    """What ``rounds.csv`` holds, as scalars in ``<run_dir>/tensorboard``.

    Parameters
    ----------
    run_dir : Path
    after : int
        Rounds that are there already; later ones of an earlier attempt are dropped.

    Raises
    ------
    SnowdropError
        If the package tensorboard is not installed.
    """

    def __init__(self, run_dir: Path, after: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SnowdropError(
                "tensorboard = true needs the package tensorboard; `pip install tensorboard`"
            ) from error
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=after + 1)

    def add(self, row: Mapping[str, Any]) -> None:
        """One round."""
        for name, value in row.items():
            if name != "round":
                split, _, metric = name.partition("_")
                tag = f"{split}/{metric}" if split == "validation" else f"training/{name}"
                self._writer.add_scalar(tag, value, row["round"])
        self._writer.flush()
