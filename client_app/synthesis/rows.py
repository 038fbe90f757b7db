"""Users' interactions as sparse rows of ones on a device, and users cut into two at random."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from common.metrics import metric_values

HELD_OUT = 0.2
"""Share of a user's items that are held out where a training may stop early."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of ones: the columns of row r are ``columns[starts[r]:starts[r + 1]]``.

    Parameters
    ----------
    starts : Tensor, int64 (rows + 1,)
    columns : Tensor, int64 (ones,)
    width : int
        Columns there are.
    """

    starts: Tensor
    columns: Tensor
    width: int

    @classmethod
    def of(cls, matrix: csr_array, device: torch.device | None = None) -> "Rows":
        """The rows of a matrix of bool or of counts above 0, on a device (default: the CPU)."""
        starts, columns = (
            torch.from_numpy(part.astype(np.int64)).to(device or torch.device("cpu"))
            for part in (matrix.indptr, matrix.indices)
        )
        return cls(starts, columns, matrix.shape[1])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Tensor:
        """Ones of each row, int64 (rows,)."""
        return self.starts.diff()

    @property
    def row_of(self) -> Tensor:
        """Row of each one, int64 (ones,)."""
        numbers = torch.arange(len(self), device=self.starts.device)
        return numbers.repeat_interleave(self.counts, output_size=len(self.columns))

    def take(self, chosen: Tensor) -> "Rows":
        """Some of the rows, in the order of ``chosen``, int64 (chosen,)."""
        counts = self.counts[chosen]
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        total = int(starts[-1])
        shift = (self.starts[chosen] - starts[:-1]).repeat_interleave(counts, output_size=total)
        return Rows(
            starts, self.columns[torch.arange(total, device=shift.device) + shift], self.width
        )

    def dense(self) -> Tensor:
        """The rows as float32 (rows, width)."""
        full = torch.zeros(len(self), self.width, device=self.starts.device)
        full[self.row_of, self.columns] = 1
        return full

    def cut(self, share: float = HELD_OUT) -> tuple["Rows", "Rows"]:
        """Each row's ones cut into two at random: what is kept, and ⌈share⌉ of it held out.

        Draws from torch's generator.
        """
        row = self.row_of
        order = torch.rand(len(row), dtype=torch.float64, device=row.device).argsort()
        order = order[row[order].argsort(stable=True)]
        place = torch.arange(len(row), device=row.device) - self.starts[row]
        held = place < (self.counts * share).ceil()[row]
        return self._part(order, row, ~held), self._part(order, row, held)

    def _part(self, order: Tensor, row: Tensor, chosen: Tensor) -> "Rows":
        counts = torch.bincount(row[chosen], minlength=len(self))
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Rows(starts, self.columns[order[chosen]], self.width)


def recall(scores: Tensor, kept: Rows, held: Rows, k: int = 10) -> Tensor:
    """Recall@k of held-out items, hits over min(k, held-out items); kept items are not ranked.

    Parameters
    ----------
    scores : Tensor, float32 (users, items)
        Written to.
    kept, held : Rows
        Of the same users; each holds out an item at least.

    Returns
    -------
    Tensor, float64 (users,)
    """
    scores[kept.row_of, kept.columns] = -torch.inf
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    relevant = torch.zeros_like(scores, dtype=torch.bool)
    relevant[held.row_of, held.columns] = True
    hits = relevant.gather(1, best).cpu()
    return metric_values(hits, held.counts.clamp(max=k).cpu(), (k,))[f"recall@{k}"]
