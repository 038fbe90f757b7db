"""PFedRec's node half: a private scoring function, and items that each user makes its own.

Zhang, Long, Zhou, Yan, Zhang, Zhang and Yang, "Dual Personalization on Federated Recommendation",
IJCAI 2023 (arXiv 2301.08143): a user scores with the item table as its own training leaves it. The
published code takes the table of the last round's training; here a user trains once more, on the
table that the server has made since.
"""

import numpy as np
import torch
from torch import Tensor

from client_app.methods.backbone import Backbone, SharedTable
from client_app.methods.base import Local
from client_app.scorers import Scorer
from common.users.training import train_users

SCORING_ROUND = 0
"""Draws the negatives of the training before items are scored; rounds begin with 1."""


class PFedRec(Backbone):
    """As every backbone; with ``pfedrec.personal``, items are scored by users' own copies."""

    def own_scorer(self, local: Local) -> Scorer:
        if local.settings.group(self.name).personal:
            return OwnCopy(local, self)
        return super().own_scorer(local)


class OwnCopy(SharedTable):
    """As the shared table, after one more round of each user's training on a copy of its own.

    Needs ``round``, (1, 1): of the item table.
    """

    def __init__(self, local: Local, half: Backbone) -> None:
        super().__init__(local, half)
        number = int(local.number("round")) + 1
        self._settings = half.settings_of(local, number)
        self._beside = half.beside(local, self.state, number)

    def scores(self, users: np.ndarray) -> Tensor:
        local = self.local
        scores = torch.empty(len(users), len(self.items))
        order = np.argsort(users)
        for trained in train_users(
            users, self.items, self.state, local.histories, local.keys, SCORING_ROUND,
            self._settings, beside=self._beside,
        ):  # fmt: skip
            rows = torch.from_numpy(order[np.searchsorted(users[order], trained.users)])
            scores[rows] = self.head.scores(trained.state, self.items)
            samples = trained.samples
            own = self.items[samples.items] + trained.moved
            real = samples.real > 0
            place = rows[:, None].expand_as(samples.items)[real]
            scores[place, samples.items[real]] = self.head.logits(trained.state, own)[real]
        return scores
