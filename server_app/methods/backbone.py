"""The server's half of the federated recommenders for warm items.

It has the item table and, where users share parts of their scoring heads, these parts. Both move by
the mean over users of what their local training changed: federated averaging (McMahan, Moore,
Ramage, Hampson and Agüera y Arcas, AISTATS 2017), since all start a round from the same numbers.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.methods.backbone import BackboneSettings
from common.users.heads import HEADS
from server_app.aggregation import Expected, Summed
from server_app.methods.base import Scoring, Trained, World
from server_app.methods.table import expected_change, former_rows, overflowed, stepped

log = logging.getLogger("snowdrop")


class Backbone(Trained):
    """An item table and the shared parts of the scoring head, both averaged over users.

    Parameters
    ----------
    name : str
        Of the method's card.
    world : World
    """

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world, self.settings = name, world, world.settings
        self.own: BackboneSettings = world.settings.group(name)
        self.round = 0
        self.table = self._own_start()  # float32 (warm, d)
        self.scorer = self._first_scorer()  # float32 (1, numbers); no numbers without shared parts

    def _own_start(self) -> Tensor:
        draw = torch.Generator().manual_seed(self.settings.seed)
        rows = len(self.world.rows("warm"))
        return self.own.start_scale * torch.randn(rows, self.settings.dim, generator=draw)

    def _first_scorer(self) -> Tensor:
        """Uniform numbers within the bounds of the head's own start."""
        shapes = HEADS[self.settings.head].shapes(self.settings.dim)
        draw = torch.Generator().manual_seed(self.settings.seed + 1)
        parts = [
            (torch.rand(int(np.prod(shape)), generator=draw) * 2 - 1) * bound
            for shape, bound in (shapes[name] for name in self.own.shared)
        ]
        return torch.cat([torch.zeros(0), *parts])[None]

    @property
    def fitted_round(self) -> int:
        return self.round

    def arrays(self) -> dict[str, np.ndarray]:
        return {"table": self.table.numpy()} | self._shared()

    def _shared(self) -> dict[str, np.ndarray]:
        return {"scorer": self.scorer.numpy()} if self.own.shared else {}

    def expected(self) -> dict[str, Expected]:
        expected = expected_change(self.table, self.settings)
        if self.own.shared:
            shape, whole = tuple(self.scorer.shape), self.settings.whole_sums
            expected["scorer"] = Expected(shape, bounded=True, whole=whole)
        return expected

    def step(self, summed: Summed) -> None:
        self.round += 1
        if not summed.users:
            return
        self.table = stepped(self.table, summed, self.settings)
        if self.own.shared:
            mean = torch.from_numpy((summed.sums["scorer"] / summed.users).astype(np.float32))
            self.scorer = self.scorer + self.settings.server_lr * mean
        if not (torch.isfinite(self.table).all() and torch.isfinite(self.scorer).all()):
            raise overflowed(self.round)

    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        return {}

    def scoring(self, splits: Sequence[str]) -> Scoring:
        if list(splits) != ["warm"]:
            raise SnowdropError(
                f"the method {self.name} ranks only items that were trained, and no new ones"
            )
        number = np.full((1, 1), self.round, np.float32)
        arrays = {"items": self.table.numpy(), "round": number, **self._shared()}
        return Scoring("backbone", arrays, self.name)

    def state(self) -> dict[str, Any]:
        return {"table": self.table, "scorer": self.scorer}

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        """Take over a checkpoint; an item that has become warm since starts at random."""
        self.table, self.scorer, self.round = state["table"], state["scorer"], state["round"]
        self._follow(former)

    def move(self, world: World) -> None:
        former, self.world, self.settings = self.world.catalogue, world, world.settings
        self._follow(former)

    def _follow(self, former: ItemIndex) -> None:
        """Give the items of today's catalogue their rows."""
        today = self.world.catalogue
        if today.version == former.version:
            return
        rows = former_rows(former, today)
        known = rows >= 0
        table = self._own_start()
        table[known] = self.table[rows[known]]
        self.table = table
        log.info("the catalogue has changed: %d items have become warm", int((~known).sum()))
