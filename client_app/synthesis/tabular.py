"""Synthesizers that take items as the columns of a table, with three values.

Xu, Skoularidou, Cuesta-Infante, Veeramachaneni: Modeling Tabular Data using Conditional GAN
(NeurIPS 2019, arXiv 1907.00503), as SDRM compares with it (arXiv 2311.03488): −1 for a disliked
item, 0 for one that a user has not rated, 1 for a liked one; discrete columns, no threshold.

The networks are those of the package ``ctgan``. Its trainings walk over the columns one by one and
cannot be stopped: here a step takes all columns at once, and a training goes on where it was.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from client_app.synthesis.base import Sample, Synthesizer, Watch, unwatched
from client_app.synthesis.loop import Keeper, Stage, check_silo, digest_of, run, seeded
from client_app.synthesis.rows import Rows
from client_app.synthesis.silo import Silo
from client_app.synthesis.threshold import check_users, gathered
from common.errors import SnowdropError
from common.methods.tabular import TabularSettings

OwnTabular = TypeVar("OwnTabular", bound=TabularSettings)

FLOAT = 4
"""Bytes of a number."""


@dataclass(frozen=True, eq=False)
class Table:
    """Users' values of items as one-hot categories.

    Items of two values stand first, then those of three; an item's categories stand together, in
    ascending order. Items that have the same value for all users have no category.

    Parameters
    ----------
    likes, lows : Rows
        Items that users liked, and those that they rated and did not like.
    item : Tensor, int64 (categories,)
    value : Tensor, int8 (categories,)
        −1, 0 or 1.
    pairs : int
        Items of two values.
    constant : Tensor, int8 (items,)
        The value of items that have one; 0 for others.
    """

    likes: Rows
    lows: Rows
    item: Tensor
    value: Tensor
    pairs: int
    constant: Tensor

    @classmethod
    def of(cls, silo: Silo, device: torch.device) -> "Table":
        """The table of a silo's users.

        Raises
        ------
        SnowdropError
            If all users have the same values.
        """
        users, items = silo.likes.shape
        lows = csr_array((silo.rated.astype(np.int8) - silo.likes.astype(np.int8)) > 0)
        counts = np.stack([lows.sum(axis=0), np.zeros(items), silo.likes.sum(axis=0)], axis=1)
        counts[:, 1] = users - counts.sum(axis=1)
        present = counts > 0
        values = present.sum(axis=1)
        order = np.concatenate([(values == 2).nonzero()[0], (values == 3).nonzero()[0]])
        if not len(order):
            raise SnowdropError(
                "all users of the silo have the same interactions: there is nothing that synthetic "
                "users could differ in"
            )
        place, kind = present[order].nonzero()
        constant = np.where(values == 1, present.argmax(axis=1) - 1, 0)
        return cls(
            Rows.of(silo.likes, device),
            Rows.of(lows, device),
            torch.from_numpy(order[place]).to(device),
            torch.from_numpy((kind - 1).astype(np.int8)).to(device),
            int((values == 2).sum()),
            torch.from_numpy(constant.astype(np.int8)).to(device),
        )

    def __len__(self) -> int:
        return len(self.likes)

    @property
    def categories(self) -> int:
        return len(self.item)

    @property
    def sizes(self) -> list[int]:
        """Number of categories of each item that has any."""
        return [2] * self.pairs + [3] * ((self.categories - 2 * self.pairs) // 3)

    def encoded(self, users: Tensor) -> Tensor:
        """Categories of some users, one-hot, float32 (users, categories)."""
        values = self.likes.take(users).dense() - self.lows.take(users).dense()
        return (values[:, self.item] == self.value).float()

    def by_item(self, function: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
        """A function of each item's own categories.

        Parameters
        ----------
        function : Callable[[Tensor], Tensor]
            Takes (users, items, an item's categories), and keeps users and items.
        numbers : Tensor, (users, categories)

        Returns
        -------
        Tensor, (users, all that the function makes)
        """
        users, cut = len(numbers), 2 * self.pairs
        groups = numbers[:, :cut].view(users, -1, 2), numbers[:, cut:].view(users, -1, 3)
        return torch.cat([function(group).flatten(1) for group in groups if group.numel()], 1)

    def decoded(self, numbers: Tensor) -> Tensor:
        """Values of each item's largest category, int8 (users, items)."""
        best = self.by_item(lambda own: own.argmax(2), numbers)
        sizes = torch.tensor(self.sizes, device=best.device)
        starts = sizes.cumsum(0) - sizes
        values = self.constant.repeat(len(numbers), 1)
        values[:, self.item[starts]] = self.value[starts + best]
        return values


class TabularSynthesizer(Synthesizer[OwnTabular], Generic[OwnTabular]):
    """A network that makes rows of a table."""

    _fitted: tuple[Table, nn.ModuleDict] | None = None

    def fit(
        self, silo: Silo, seed: int, watch: Watch = unwatched, folder: Path | None = None
    ) -> None:
        check_silo(silo)
        self._check_extra()
        table = Table.of(silo, self.device)
        self._check_memory(table)
        keeper = Keeper(folder, digest_of(self.name, self.own, silo, seed))
        with seeded(seed, "network", self.device):
            network = self._network(table.categories).to(self.device)
        optimizer = self._optimizer(network)
        epoch = self._epoch(table, network, optimizer)
        run(Stage("table", network, optimizer, self.own.epochs, epoch), keeper, seed, self.device,
            watch)  # fmt: skip
        self._fitted = table, network

    @torch.no_grad()
    def sample(self, users: int, seed: int, watch: Watch = unwatched) -> Sample:
        if self._fitted is None:
            raise SnowdropError(f"{self.name} has not been fitted, so it has nothing to sample")
        check_users(users)
        with seeded(seed, "sample", self.device):
            return gathered(self._parts(*self._fitted, users, watch), self.items)

    def _parts(
        self, table: Table, network: nn.ModuleDict, users: int, watch: Watch
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for at in range(0, users, self.own.batch):
            watch("rows", at, users)
            values = table.decoded(self._made(table, network))[: users - at].cpu()
            yield values == 1, values == -1
        watch("rows", users, users)

    @abstractmethod
    def _network(self, categories: int) -> nn.ModuleDict:
        """What is trained, from torch's randomness, on torch's default device."""

    @abstractmethod
    def _optimizer(self, network: nn.ModuleDict) -> torch.optim.Optimizer: ...

    @abstractmethod
    def _epoch(
        self, table: Table, network: nn.ModuleDict, optimizer: torch.optim.Optimizer
    ) -> Callable[[int], float]:
        """One pass over the users, as in `Stage`."""

    @abstractmethod
    def _made(self, table: Table, network: nn.ModuleDict) -> Tensor:
        """Rows of a batch of synthetic users, float32 (batch, categories)."""

    @abstractmethod
    def _numbers(self, table: Table) -> int:
        """Numbers that a training holds beside the network, its gradients and its optimiser's."""

    def _check_extra(self) -> None:
        try:
            import ctgan  # noqa: F401
        except ImportError as error:
            raise SnowdropError(
                f"the method {self.name} needs the extra 'synthetic': "
                "pip install 'snowdrop[synthetic]'"
            ) from error

    def _check_memory(self, table: Table) -> None:
        """Raise a SnowdropError where the training's memory would not do."""
        with torch.device("meta"):
            network = self._network(table.categories)
        weights = sum(own.numel() for own in network.parameters())
        need = FLOAT * (4 * weights + self._numbers(table)) / 1e9
        if need > self.own.memory:
            raise SnowdropError(
                f"{self.name} would need about {need:.1f} GB for {self.items} items, and "
                f"it may take {self.name}.memory = {self.own.memory:g} GB: allow more, or take "
                "fewer items"
            )
