"""IFedRec's attribute network: modality features → item embedding, one fixed value for each item.

Zhang, Long, Zhou, Zhang, Yan and Yang, "When Federated Recommendation Meets Cold-Start Problem:
Separating Item Attributes and User Interactions", WWW 2024. The server trains the network towards
the averaged item embeddings with the mean squared error, one step of Adam on all warm items a round
in the published code; nodes pull their item embeddings towards its output (``item_pull``).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from common.settings import RunSettings
from server_app.generators.base import Generator, one_thread


class MappingGenerator(Generator):
    """c → ``mapping_width`` with ReLU → d with tanh, as published."""

    def __init__(
        self, dim: int, condition_dim: int, settings: RunSettings, device: torch.device
    ) -> None:
        super().__init__(dim, condition_dim, settings, device)
        self._start(settings.seed)

    def _start(self, seed: int) -> None:
        """A fresh network with its optimiser."""
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Linear(self.condition_dim, settings.mapping_width),
                nn.ReLU(),
                nn.Linear(settings.mapping_width, self.dim),
                nn.Tanh(),
            )
        self._network: nn.Module = network.to(self.device)
        kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.generator_optimizer]
        self._optimizer = kind(
            self._network.parameters(),
            lr=settings.generator_lr,
            weight_decay=settings.generator_weight_decay,
        )

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        settings = self.settings
        if settings.generator_refit:
            self._start(seed)
        target, conditions = target.to(self.device), conditions.to(self.device)
        batch = settings.generator_batch or len(target)
        batches = -(-len(target) // batch)
        epochs = -(-settings.generator_steps // batches) or settings.generator_epochs
        decay = None
        if settings.generator_lr_decay == "cosine" and settings.generator_refit:
            decay = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, epochs * batches)
        loss_sum = 0.0
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.enable_grad(), one_thread():
            torch.manual_seed(seed)
            for _ in range(epochs):
                loss_sum = 0.0
                for at in torch.randperm(len(target), device=self.device).split(batch):
                    condition = conditions[at]
                    if settings.condition_noise:
                        noise = torch.randn_like(condition)
                        condition = condition + settings.condition_noise * noise
                    loss = mse_loss(self._network(condition), target[at])
                    self._optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    self._optimizer.step()
                    if decay:
                        decay.step()
                    loss_sum += float(loss.detach()) * len(at)
        return loss_sum / len(target)

    @torch.no_grad()
    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        return self._network(conditions.to(self.device)).cpu()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
