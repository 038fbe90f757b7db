"""IFedRec's attribute network: modality features → item embedding, one fixed value for each item.

Zhang, Long, Zhou, Zhang, Yan and Yang, "When Federated Recommendation Meets Cold-Start Problem:
Separating Item Attributes and User Interactions", WWW 2024. The server trains the network towards
the averaged item embeddings with the mean squared error, one step of Adam on all warm items a round
in the published code; nodes pull their item embeddings towards its output (``ipfedrec.pull``).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from common.methods.ipfedrec import IFedRecSettings
from common.users.pull import MappedPull
from common.users.training import Pull
from server_app.methods.base import Generator
from server_app.methods.network import NetworkGenerator


class IPFedRec(NetworkGenerator[IFedRecSettings]):
    """c → ``width`` with ReLU → d with tanh, as published."""

    @property
    def mapping(self) -> Generator[Any] | None:
        return self if self.own.pull else None

    def pull(self, table: Tensor, mapped: Tensor) -> Pull | None:
        return MappedPull(table, mapped, self.own.pull, self.settings) if self.own.pull else None

    def _build(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(self.condition_dim, self.own.width),
            nn.ReLU(),
            nn.Linear(self.own.width, self.dim),
            nn.Tanh(),
        )

    def _loss(self, target: Tensor, condition: Tensor) -> Tensor:
        if noise := self.own.condition_noise:
            condition = condition + noise * torch.randn_like(condition)
        return mse_loss(self._network(condition), target)

    @torch.no_grad()
    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        return self._network(conditions.to(self.device)).cpu()
