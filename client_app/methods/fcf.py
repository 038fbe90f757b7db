"""FCF's node half: a private user vector, trained with the item table or solved for it."""

import numpy as np

from client_app.methods.backbone import Backbone, SharedTable
from client_app.methods.base import Local
from client_app.scorers import Scorer
from common.methods.fcf import FCFSettings
from common.users.heads import State
from common.users.least_squares import least_squares_round, vectors
from common.users.training import Beside, RoundResult


class FCF(Backbone):
    """As every backbone; or, with ``fcf.solver=least-squares``, as published."""

    def one_round(
        self, local: Local, state: State, number: int, beside: Beside | None = None
    ) -> tuple[State, RoundResult]:
        own: FCFSettings = local.settings.group(self.name)
        if own.solver == "sgd":
            return super().one_round(local, state, number, beside)
        table = local.table("table", local.warm, local.settings.dim)
        result = least_squares_round(
            table, local.histories, local.keys, number, local.settings, own.confidence, own.ridge
        )
        return state, result

    def own_scorer(self, local: Local) -> Scorer:
        own: FCFSettings = local.settings.group(self.name)
        return super().own_scorer(local) if own.solver == "sgd" else Solved(local, self, own)


class Solved(SharedTable):
    """User vectors that are solved for the item table. Needs ``items``: (items, d)."""

    def __init__(self, local: Local, half: FCF, own: FCFSettings) -> None:
        super().__init__(local, half)
        self._own = own

    def heads(self, users: np.ndarray) -> State:
        own = self.local.histories.take(users)
        return {"user": vectors(self.items, own, self._own.confidence, self._own.ridge)}
