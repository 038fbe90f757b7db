"""Group fusion's node half: users pick their group, and score new items as the group has them."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from client_app.methods.base import Local, NodeMethod, answer_of, groups_of
from client_app.scorers import Scorer
from common.messages import TrainAnswer, TrainRequest
from common.methods.fusion import GroupSettings
from common.users.heads import HEADS, State
from common.users.training import Beside, train_round


class OwnGroup(Scorer):
    """Users' heads on the embeddings that their group has of the items.

    Needs ``items``: (groups · items, d), and ``centroids``.
    """

    logits = True

    def __init__(self, local: Local) -> None:
        self._state, self._head = local.state_of(), HEADS[local.settings.head]
        own = local.settings.group(local.settings.card.name)
        self._groups = groups_of(local, own, list(self._state))
        rows = local.table("items", own.groups * local.items, local.settings.dim)
        self._tables = rows.reshape(own.groups, local.items, -1)

    def __call__(self, users: np.ndarray) -> Tensor:
        state = {name: part[users] for name, part in self._state.items()}
        group = self._groups.of(users, state)
        scores = torch.empty(len(users), self._tables.shape[1])
        for one in group.unique():
            there = group == one
            own = {name: part[there] for name, part in state.items()}
            scores[there] = self._head.scores(own, self._tables[one])
        return scores


class GroupFusion(NodeMethod):
    """Heads and an item table as for every method, with sums of each group apart."""

    scorers: Mapping[str, type[Scorer]] = {"own-group": OwnGroup}
    noised = True

    def train(self, request: TrainRequest, local: Local) -> tuple[State, TrainAnswer]:
        settings, state = local.settings, local.state_of()
        own: GroupSettings = settings.group(self.name)
        groups = groups_of(local, own, list(state))
        after, result = train_round(
            local.table("table", local.warm, settings.dim),
            state,
            local.histories,
            local.keys,
            request.round,
            settings,
            beside=Beside(groups=groups, told=groups.names, membership=own.membership(settings)),
        )
        return after, answer_of(result, request, settings, told=groups.names)
