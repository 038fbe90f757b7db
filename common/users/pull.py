"""A pull of users' item embeddings towards what a generator makes of the items (IFedRec).

With a weight λ, the loss on item embeddings gains λ · MSE(E_u, E_mapped) (Zhang et al., "When
Federated Recommendation Meets Cold-Start Problem", WWW 2024), E_mapped being what the server's
generator makes of the warm items. As in the published code the mean is over the whole table, so a
batch moves rows that the user does not touch as well; these all move by the same share of their
distance to E_mapped, which is summed over users without a copy of E. With average = "touches" only
a user's own rows count, so the mean is over these.
"""

import torch
from torch import Tensor

from common.settings import TrainingSettings
from common.users.mechanism import Mechanism, powers
from common.users.training import Samples, item_rate


class MappedPull:
    """The gradient of λ · MSE(E_u, E_mapped), and what it adds up to on rows that nobody samples.

    One batch multiplies a row's distance to E_mapped by 1 − p, p = item rate · λ · 2 / (rows · d),
    on top of the gradient of the cross-entropy; a row that a user does not touch has moved by
    ((1 − p)^batches − 1) of its distance at the end of the round.

    Parameters
    ----------
    table : Tensor, float32 (warm, d)
    mapped : Tensor, float32 (warm, d)
        E_mapped.
    strength : float
        λ.
    settings : TrainingSettings
    """

    def __init__(
        self, table: Tensor, mapped: Tensor, strength: float, settings: TrainingSettings
    ) -> None:
        self._distance = table - mapped  # float32 (warm, d)
        self._mapped = mapped
        self._warm = len(table)
        self._known_lengths: dict[int, Tensor] = {}
        self._everywhere = settings.average == "users"
        self._rate = item_rate(settings, len(table)) * strength * 2 / settings.dim
        self._everyone = torch.zeros((), dtype=torch.float64)
        self._touching = torch.zeros(len(table), dtype=torch.float64)
        self._whole = torch.zeros(table.shape, dtype=torch.int64)
        self._counts_steps = False

    def step(self, rows: Tensor, samples: Samples, active: Tensor) -> Tensor:
        """The pull of one batch on the rows of all users that have such a batch.

        Parameters
        ----------
        rows : Tensor, float32 (users, width, d)
        samples : Samples
        active : Tensor, float32 (users,)
            1 for users that have the batch.
        """
        share = (self._share(samples) * active)[:, None] * samples.real
        return (self._mapped[samples.items] - rows) * share[:, :, None]

    def elsewhere(self, samples: Samples, batches: Tensor, order: int = 1) -> Tensor:
        """Σ |x|^order of each user's change on rows that it does not touch, float (users,)."""
        if not self._everywhere:
            return torch.zeros(len(batches))
        lengths = self._lengths(order)
        drift = powers(self._drift(samples, batches), order)
        return drift * (self._untouched(samples).to(lengths.dtype) @ lengths)

    def _untouched(self, samples: Samples) -> Tensor:
        """1 for each row that a user does not touch, else 0, float32 (users, warm)."""
        rows = torch.ones(len(samples.items), self._warm)
        return rows.scatter_add_(1, samples.items, -samples.real)

    def _lengths(self, order: int) -> Tensor:
        """Σ |x|^order of each row's distance, float (warm,); summed once for a round."""
        if order not in self._known_lengths:
            self._known_lengths[order] = powers(self._distance, order).sum(1)
        return self._known_lengths[order]

    def note(self, samples: Samples, batches: Tensor, kept: Tensor, mechanism: Mechanism) -> None:
        """Add users to `change`, of whose change the share ``kept`` is kept, float (users,)."""
        self._counts_steps = mechanism.dtype == torch.int64
        if self._everywhere and self._counts_steps:
            self._note_each(samples, batches, kept, mechanism)
        elif self._everywhere:
            drift = (self._drift(samples, batches) * kept).double()
            self._everyone += drift.sum()
            weights = drift[:, None] * samples.real
            self._touching.index_add_(0, samples.items.flatten(), weights.flatten())

    def _note_each(
        self, samples: Samples, batches: Tensor, kept: Tensor, mechanism: Mechanism
    ) -> None:
        """Each user's change on all rows that it does not touch, rounded by itself."""
        drift, distance = self._drift(samples, batches).double(), self._distance.double()
        for rows, share, left in zip(self._untouched(samples).double(), drift, kept, strict=True):
            part = (share * rows)[None, :, None] * distance
            self._whole += mechanism.parts(part, left[None])[0]

    def change(self) -> Tensor:
        """Sum over the noted users of the change on rows that each does not touch, (warm, d).

        Of the mechanism's dtype.
        """
        if self._counts_steps:
            return self._whole
        return self._distance * (self._everyone - self._touching).float()[:, None]

    def _share(self, samples: Samples) -> Tensor:
        rows = samples.real.sum(1).clamp(min=1)
        return self._rate / (torch.full_like(rows, self._warm) if self._everywhere else rows)

    def _drift(self, samples: Samples, batches: Tensor) -> Tensor:
        return (1 - self._share(samples)) ** batches - 1
