"""The softmax table's server half: FedAdam on an item table, and the way from warm to cold items.

Users are sent the item table E and answer with their gradients (`common.users.softmax`). The server
moves E by Adam along the mean of these: FedAdam (Reddi, Charles, Zaheer, Garrett, Rush, Konečný,
Kumar and McMahan, "Adaptive Federated Optimization", arXiv 2003.00295, algorithm 2) with one local
step, and with a learning rate that falls as a cosine does (Loshchilov and Hutter, "SGDR",
arXiv 1608.03983, equation 5). A user whose history is x scores the cold items by
(1 − share) · standard(x C') + share · standard(x E (C E)'), with C the weights of texts of kernel
ridge.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.catalogue import ItemIndex
from common.methods.carried import SHARES
from common.methods.softmax_table import SoftmaxTableSettings
from common.users.heads import State
from common.users.mechanism import Unchanged
from common.users.softmax import sampled_rows, softmax_sums
from common.users.synthetic import SyntheticUsers
from common.users.training import participants
from server_app.aggregation import Expected, Summed
from server_app.carrier import Carrier
from server_app.methods.base import Scoring, Trained, World
from server_app.methods.table import first_transform, former_rows, overflowed
from server_app.shares import asked_of_some, likely_share

log = logging.getLogger("snowdrop")

_UNTRIED = 0.5
"""The share where nobody chose it and no validation items can."""

_WARM_UP = 5
"""Rounds in which the learning rate rises to its full size."""

_MOMENTS = 0.9, 0.99
"""β of Adam."""


class SoftmaxTable(Trained):
    """The item table E and the logarithm of the scale of its cosines.

    Parameters
    ----------
    name : str
        Of the method's card.
    world : World
    """

    trains_synthetic = True
    has_heads = False

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world, self.settings = name, world, world.settings
        self.own: SoftmaxTableSettings = world.settings.group(name)
        self.round = 0
        self.table = self._own_start()  # float32 (warm, d)
        self.log_scale = torch.tensor([[math.log(self.own.scale)]])
        self.chosen: float | None = None
        self._users = 0  # of the last round
        self._begin_adam()

    def _own_start(self) -> Tensor:
        """Warm items' own features as embeddings, float32 (warm, d)."""
        features = self.world.blocks().beside(self.world.features)
        transform = first_transform(self.world, features)
        return transform.embeddings(features[self.world.rows("warm")])

    def _begin_adam(self) -> None:
        self._leaves = [nn.Parameter(one.clone()) for one in (self.table, self.log_scale)]
        rates = (self.own.lr, self.own.scale_lr)
        groups = [
            {"params": [leaf], "lr": lr} for leaf, lr in zip(self._leaves, rates, strict=True)
        ]
        self._adam = torch.optim.Adam(groups, betas=_MOMENTS)

    @property
    def fitted_round(self) -> int:
        return self.round

    def arrays(self) -> dict[str, np.ndarray]:
        return {"table": self.table.numpy(), "log_scale": self.log_scale.numpy()}

    def expected(self) -> dict[str, Expected]:
        whole = self.settings.whole_sums
        shapes = {"change": tuple(self.table.shape), "scorer": (1, 1)}
        return {name: Expected(one, bounded=True, whole=whole) for name, one in shapes.items()}

    def train_synthetic(
        self, made: SyntheticUsers, keys: np.ndarray, state: State | None, number: int
    ) -> tuple[State, Summed]:
        asked = participants(keys, number, self.settings.fraction)
        histories, warm = made.histories.take(asked), len(self.table)
        sampled = sampled_rows(warm, self.own.negatives, self.settings, number)
        scale = float(self.log_scale)
        found = softmax_sums(
            self.table, scale, histories, keys[asked], number, Unchanged(), sampled
        )
        sums = {"change": found.change.numpy(), "scorer": found.log_scale.numpy()}
        return {}, Summed(len(asked), found.loss, sums)

    def step(self, summed: Summed) -> None:
        """Adam along the mean over users, of which the share ``server_lr`` is taken."""
        self.round += 1
        if not summed.users:
            return
        self._users = summed.users
        now, rates = (self.table, self.log_scale), (self.own.lr, self.own.scale_lr)
        for leaf, value, name in zip(self._leaves, now, ("change", "scorer"), strict=True):
            leaf.data = value.clone()
            leaf.grad = torch.from_numpy((-summed.sums[name] / summed.users).astype(np.float32))
        for group, rate in zip(self._adam.param_groups, rates, strict=True):
            group["lr"] = rate * self._decay()
        self._adam.step()
        self.table, self.log_scale = (
            torch.lerp(value, leaf.detach(), self.settings.server_lr)
            for value, leaf in zip(now, self._leaves, strict=True)
        )
        if not (torch.isfinite(self.table).all() and torch.isfinite(self.log_scale).all()):
            raise overflowed(self.round)

    def _decay(self) -> float:
        """Share of the learning rate in the round that has just been made."""
        cosine = math.cos(math.pi * (self.round - 1) / max(self.settings.rounds, self.round))
        return min(1.0, self.round / _WARM_UP) * (1 + cosine) / 2

    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        return {}

    def trial(self, splits: Sequence[str]) -> Scoring | None:
        if self.settings.noise or self.own.share >= 0:
            return None  # what validation tells would be outside ε
        return asked_of_some(self._scoring(splits, SHARES), self._users, self.settings)

    def choose(self, tried: Sequence[Mapping[str, float]], users: int) -> None:
        values = np.array([form["recall@20"] + form["ndcg@20"] for form in tried])
        self.chosen = SHARES[likely_share(values, SHARES, users)]
        log.info("validation items chose a share of %g", self.chosen)

    def scoring(self, splits: Sequence[str]) -> Scoring:
        chosen = _UNTRIED if self.chosen is None else self.chosen
        return self._scoring(splits, (self.own.share if self.own.share >= 0 else chosen,))

    def _scoring(self, splits: Sequence[str], shares: Sequence[float]) -> Scoring:
        arrays = {
            **Carrier(self.world, self.own).arrays(splits),
            "table": self.table.numpy(),
            "shares": np.array([shares], np.float32),
        }
        return Scoring("history-and-table", arrays, self.name, forms=len(shares))

    def state(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "log_scale": self.log_scale,
            "chosen": self.chosen,
            "adam": self._adam.state_dict(),
        }

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        """Take over a checkpoint.

        An item that has become warm since starts where the weights of texts carry the others to,
        and Adam begins anew.
        """
        self.table, self.log_scale = state["table"], state["log_scale"]
        self.chosen, self.round = state["chosen"], state["round"]
        self._follow(former)
        self._begin_adam()
        if former.version == self.world.catalogue.version:
            self._adam.load_state_dict(state["adam"])

    def move(self, world: World) -> None:
        former, self.world, self.settings = self.world.catalogue, world, world.settings
        self._follow(former)
        self._begin_adam()

    def _follow(self, former: ItemIndex) -> None:
        """Give the items of today's catalogue their rows."""
        today = self.world.catalogue
        if today.version == former.version:
            return
        rows = former_rows(former, today)
        known, new = (torch.nonzero(one)[:, 0].numpy() for one in (rows >= 0, rows < 0))
        table = torch.zeros(len(rows), self.settings.dim)
        table[known] = self.table[rows[known]]
        if len(new):
            weights = Carrier(self.world, self.own).among_warm(known, new)
            table[new] = torch.from_numpy(weights) @ table[known]
        self.table = table
        log.info("the catalogue has changed: %d items have become warm", len(new))
