"""FCF's server half: the item table alone, averaged or moved by Adam along users' gradients."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from common.catalogue import ItemIndex
from common.methods.fcf import FCFSettings
from server_app.aggregation import Summed
from server_app.methods.backbone import Backbone
from server_app.methods.base import World
from server_app.methods.table import overflowed


class FCF(Backbone):
    """As every backbone; or, with ``fcf.solver=least-squares``, as published.

    The server then moves the item table by Adam along Σ_u c_ui (p_ui − x_u · y_i) x_u − λ y_i (the
    gradient of `common.users.least_squares`), and takes the share ``server_lr`` of each step.
    """

    own: FCFSettings

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self._begin_adam()

    def _begin_adam(self) -> None:
        self._leaf = nn.Parameter(self.table.clone())
        self._adam = torch.optim.Adam([self._leaf], lr=self.own.adam_lr)

    @property
    def _solves(self) -> bool:
        return self.own.solver == "least-squares"

    def step(self, summed: Summed) -> None:
        if not self._solves:
            super().step(summed)
            return
        self.round += 1
        if not summed.users:
            return
        asked = torch.from_numpy(summed.sums["change"]).float() - self.own.ridge * self.table
        # The mean over users: Adam's steps are those of the sum, but for its ε.
        self._leaf.grad = -asked / summed.users
        self._leaf.data = self.table.clone()
        self._adam.step()
        self.table = torch.lerp(self.table, self._leaf.detach(), self.settings.server_lr)
        if not torch.isfinite(self.table).all():
            raise overflowed(self.round)

    def state(self) -> dict[str, Any]:
        own = {"adam": self._adam.state_dict()} if self._solves else {}
        return super().state() | own

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        super().restore(state, former)
        self._begin_adam()
        if self._solves and former.version == self.world.catalogue.version:
            self._adam.load_state_dict(state["adam"])

    def move(self, world: World) -> None:
        super().move(world)
        self._begin_adam()
