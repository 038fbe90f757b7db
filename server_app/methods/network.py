"""What all generators that train a network by mini-batches have in common."""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from common.device import one_thread
from common.methods.generator import NetworkSettings
from server_app.methods.base import Generator
from server_app.pace import Pace

log = logging.getLogger("snowdrop")

OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

FIT_SECONDS = 30.0
"""While a generator is fitted, a log line comes at least this long after the last one."""

OwnNetwork = TypeVar("OwnNetwork", bound=NetworkSettings)


class NetworkGenerator(Generator[OwnNetwork]):
    """A network with its optimiser, afresh at each training or going on from the last one."""

    def _begin(self) -> None:
        self._start(self.settings.seed)

    @abstractmethod
    def _build(self) -> nn.Module:
        """An untrained network, on the CPU."""

    @abstractmethod
    def _loss(self, target: Tensor, condition: Tensor) -> Tensor:
        """Mean loss of a batch: float32 (batch, d) and (batch, c) on the device, to a scalar."""

    def _start(self, seed: int) -> None:
        own = self.own
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = self._build().to(self.device).eval()
        self._optimizer: torch.optim.Optimizer = OPTIMIZERS[own.optimizer](
            self._network.parameters(),
            lr=own.lr,
            weight_decay=own.weight_decay,
        )

    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        own = self.own
        if own.refit:
            self._start(seed)
        target, conditions = target.to(self.device), conditions.to(self.device)
        batch = own.fit_batch or len(target)
        batches = -(-len(target) // batch)
        epochs = -(-own.fit_steps // batches) or own.fit_epochs
        decay = None
        if own.lr_decay == "cosine" and own.refit:
            decay = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, epochs * batches)
        loss_sum = torch.zeros((), device=self.device)
        pace = Pace(epochs, FIT_SECONDS)
        with self._seeded(seed), torch.enable_grad(), one_thread():
            self._network.train()
            for epoch in range(epochs):
                loss_sum.zero_()
                order = torch.randperm(len(target), device=self.device)
                for at in order.split(batch):
                    loss = self._loss(target[at], conditions[at])
                    self._optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    self._optimizer.step()
                    if decay:
                        decay.step()
                    loss_sum += loss.detach() * len(at)
                if told := pace.step(1):
                    share = 100 * (epoch + 1) / epochs
                    log.info(
                        "fitting the generator: %.0f %% done in %.0f s, about %.0f s left",
                        share, *told,
                    )  # fmt: skip
            self._network.eval()
        return float(loss_sum) / len(target)

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """All randomness within comes from the seed, on the CPU and on the device."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            yield

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
