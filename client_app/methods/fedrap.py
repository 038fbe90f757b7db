"""FedRAP's node half: each user has an item table of its own beside the shared one.

Li, Long and Zhou, "Federated Recommendation with Additive Personalization", ICLR 2024 (arXiv
2301.09109): the score is σ(w_u · (d_ui + c_i) + b_u), with the row d_ui of the user's own table D_u
(personality) and the row c_i of the shared table C (commonality). A user minimises

    cross-entropy − α · mean (d_ui − c_i)² + β · mean |c_i|,

the means over the entries of a batch's rows, with α and β of round r as tanh((r − 1) / 10). Only
changes of C leave the node. Of D_u, only rows that the user has trained are kept.
"""

from dataclasses import replace

import numpy as np
from torch import Tensor

from client_app.methods.backbone import Backbone, SharedTable
from client_app.methods.base import Local
from client_app.scorers import Scorer
from common.errors import SnowdropError
from common.methods.fedrap import FedRAPSettings
from common.settings import TrainingSettings
from common.users.heads import State
from common.users.personal import FirstRows, OwnRows, is_own, nothing_kept
from common.users.training import Beside


class FedRAP(Backbone):
    """Heads, users' own item tables, and the shared one."""

    def fresh(self, keys: np.ndarray, settings: TrainingSettings) -> State:
        return super().fresh(keys, settings) | nothing_kept(len(keys), settings.dim)

    def heads_of(self, state: State) -> State:
        return {name: part for name, part in state.items() if not is_own(name)}

    def own_rows(self, local: Local, state: State, number: int) -> "Personality":
        """Users' own item tables, as a round finds them."""
        settings = local.settings
        own: FedRAPSettings = settings.group(self.name)
        if local.catalogue is None:
            raise SnowdropError("users' own item tables need the catalogue")
        first = FirstRows.drawn(
            local.keys, local.catalogue.warm_keys, settings.dim, own.own_scale, settings.seed,
            same=own.own_start == "same",
        )  # fmt: skip
        return Personality(state, first, own, number)

    def beside(self, local: Local, state: State, number: int) -> Beside:
        return replace(
            super().beside(local, state, number), personal=self.own_rows(local, state, number)
        )

    def state_after(self, heads: State, beside: Beside) -> State:
        assert isinstance(beside.personal, OwnRows)
        return heads | beside.personal.state()

    def own_scorer(self, local: Local) -> Scorer:
        return BothTables(local, self)


class Personality(OwnRows):
    """Users' own rows, kept apart from the shared ones, which are to be sparse."""

    def __init__(self, state: State, first: FirstRows, own: FedRAPSettings, number: int) -> None:
        super().__init__(state, first, only_history=own.keep == "history")
        self.rate = own.own_rate
        self._difference, self._sparsity = own.weights(number)

    def gradients(self, own: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Of − α · mean (d − c)² + β · mean |c|, on d and on c."""
        each = weights[:, :, None] / rows.shape[2]
        apart = 2 * self._difference * each * (own - rows)
        return -apart, apart + self._sparsity * each * rows.sign()


class BothTables(SharedTable):
    """Users' heads on the sum of both tables. Needs ``items``: (items, d)."""

    def __init__(self, local: Local, half: FedRAP) -> None:
        super().__init__(local, half)
        self._own = half.own_rows(local, self.state, 1)

    def scores(self, users: np.ndarray) -> Tensor:
        heads = self.heads(users)
        return self.head.scores(heads, self.items) + self._own.scores(users, heads["weight"])
