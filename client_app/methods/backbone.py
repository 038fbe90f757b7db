"""The node's half of the federated recommenders for warm items.

Each has a private state for each user, an item table that users train together and, where its card
says so, parts of the scoring head that they share as well.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from client_app.methods.base import Local, NodeMethod, answer_of
from client_app.scorers import Scorer
from common.messages import TrainAnswer, TrainRequest
from common.methods.backbone import BackboneSettings
from common.settings import TrainingSettings
from common.users.heads import HEADS, State
from common.users.mechanism import without_mechanism
from common.users.training import Beside, RoundResult, train_round

SCORER = "backbone"
"""The scorer that each of these methods brings."""

SCORES_AT_ONCE = 2**24
"""Numbers of the item embeddings that are scored for a part of the users."""


class Backbone(NodeMethod):
    """Heads, some of whose parts may be shared, and an item table."""

    noised = True

    def fresh(self, keys: np.ndarray, settings: TrainingSettings) -> State:
        """The private parts of the heads of users that never trained."""
        shared = self.own(settings).shared
        whole = HEADS[settings.head].fresh(keys, settings)
        return {name: part for name, part in whole.items() if name not in shared}

    def own(self, settings: TrainingSettings) -> BackboneSettings:
        """The method's own settings."""
        group: BackboneSettings = settings.group(self.name)
        return group

    def scorer_of(self, local: Local) -> State:
        """The parts of the head that users share, as the message brings them."""
        settings = local.settings
        head, names = HEADS[settings.head], self.own(settings).shared
        if not names:
            return {}
        vector = local.table("scorer", 1, head.size(names, settings.dim))[0]
        return head.parts(vector, names, settings.dim)

    def beside(self, local: Local, state: State, number: int) -> Beside:
        """What is trained beside the private heads and the item table, or added to the loss."""
        own = self.own(local.settings)
        return Beside(
            scorer=self.scorer_of(local),
            scorer_lr=own.rates(local.settings, number).get("scorer_lr", 0.0),
            rows_by_sum=own.item_lr_per_sample,
        )

    def settings_of(self, local: Local, number: int) -> TrainingSettings:
        """The settings of a round, whose learning rates may have fallen."""
        rates = self.own(local.settings).rates(local.settings, number)
        shared = {name: rate for name, rate in rates.items() if name != "scorer_lr"}
        return local.settings.model_copy(update=shared)

    def heads_of(self, state: State) -> State:
        """The part of the users' state that are heads."""
        return state

    def train(self, request: TrainRequest, local: Local) -> tuple[State, TrainAnswer]:
        state, result = self.one_round(local, local.state_of(), request.round)
        shared = self.own(local.settings).shared
        return state, answer_of(result, request, local.settings, shared)

    def fit_heads(self, rounds: Iterable[int], local: Local) -> State:
        alone = replace(local, settings=without_mechanism(local.settings))
        state = local.state_of()
        for number in rounds:
            beside = replace(self.beside(alone, state, number), forgiving=True)
            state, _ = self.one_round(alone, state, number, beside)
        return state

    def one_round(
        self, local: Local, state: State, number: int, beside: Beside | None = None
    ) -> tuple[State, RoundResult]:
        """Train all users for one round: their whole state after it, and what leaves the node.

        Parameters
        ----------
        local : Local
        state : State
        number : int
        beside : Beside, optional
            By default the method's own `beside`.
        """
        beside = beside or self.beside(local, state, number)
        heads, result = train_round(
            local.table("table", local.warm, local.settings.dim),
            self.heads_of(state),
            local.histories,
            local.keys,
            number,
            self.settings_of(local, number),
            beside=beside,
        )
        return self.state_after(heads, beside), result

    def scorer(self, name: str, local: Local) -> Scorer:
        return self.own_scorer(local) if name == SCORER else super().scorer(name, local)

    def own_scorer(self, local: Local) -> Scorer:
        """How the method scores warm items."""
        return SharedTable(local, self)

    def state_after(self, heads: State, beside: Beside) -> State:
        """The users' whole state after a round."""
        return heads


class SharedTable(Scorer):
    """Users' heads on the shared item table. Needs ``items``: (items, d) and ``scorer``.

    Parameters
    ----------
    local : Local
    half : Backbone
        Knows the parts of the state.
    """

    logits = True

    def __init__(self, local: Local, half: Backbone) -> None:
        self.local, self.half = local, half
        self.items = local.table("items", local.items, local.settings.dim)
        self.state = local.state_of()
        self.head = HEADS[local.settings.head]
        self._private = half.heads_of(self.state)
        self._shared = half.scorer_of(local)

    def heads(self, users: np.ndarray) -> State:
        """Whole heads of some users, float32 (users, …)."""
        own = {name: part[users] for name, part in self._private.items()}
        shared = {n: part.expand(len(users), *part.shape) for n, part in self._shared.items()}
        return own | shared

    def __call__(self, users: np.ndarray) -> Tensor:
        size = max(1, SCORES_AT_ONCE // max(1, self.items.numel()))
        parts = [users[k : k + size] for k in range(0, len(users), size)]
        return torch.cat([self.scores(part) for part in parts])

    def scores(self, users: np.ndarray) -> Tensor:
        """Scores float32 (users, items) of a part of the users."""
        return self.head.scores(self.heads(users), self.items)
