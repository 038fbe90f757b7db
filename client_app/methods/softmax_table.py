"""The softmax table's node half: users' gradients on the table, and scores by history and table."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from torch import Tensor

from client_app.carried import HistoryBeside, sums_of_rows
from client_app.methods.base import Local, NodeMethod, scaled
from client_app.scorers import Scorer
from common.errors import SnowdropError
from common.messages import TrainAnswer, TrainRequest
from common.settings import TrainingSettings
from common.users.heads import State
from common.users.mechanism import mechanism_of
from common.users.ragged import Ragged
from common.users.softmax import sampled_rows, softmax_sums
from common.users.training import participants

_LARGEST_LOG = 10.0
"""Of a scale; the numbers of a user are then far from overflowing."""


class HistoryAndTable(HistoryBeside):
    """What was learnt is (mean of E over the history) (C E)', E the item table.

    Beside what every `HistoryBeside` needs: ``table``: E, (warm, d).
    """

    def __init__(self, local: Local) -> None:
        super().__init__(local)
        self._table = local.table("table", local.warm, local.settings.dim)
        self._carried = self._own.carry(self._table)

    def learnt(self, own: Ragged) -> Iterator[Tensor]:
        # Standardised scores of a sum are those of a mean.
        yield sums_of_rows(own, self._table, None) @ self._carried.T


class SoftmaxTable(NodeMethod):
    """No state stays: a user's head is made of its history in every round."""

    scorers: Mapping[str, type[Scorer]] = {"history-and-table": HistoryAndTable}
    noised = True

    def fresh(self, keys: np.ndarray, settings: TrainingSettings) -> State:
        return {}

    def train(self, request: TrainRequest, local: Local) -> tuple[State, TrainAnswer]:
        settings = local.settings
        asked = participants(local.keys, request.round, settings.fraction)
        table = local.table("table", local.warm, settings.dim)
        log_scale = local.number("log_scale")
        if abs(log_scale) > _LARGEST_LOG:
            raise SnowdropError(f"'log_scale' must lie between ±{_LARGEST_LOG:g}")
        sums = softmax_sums(
            table,
            log_scale,
            local.histories.take(asked),
            local.keys[asked],
            request.round,
            mechanism_of(settings),
            sampled_rows(local.warm, settings.group(self.name).negatives, settings, request.round),
        )
        travelling = {
            name: scaled(one.numpy(), request.scale, settings)
            for name, one in (("change", sums.change), ("scorer", sums.log_scale))
        }
        return {}, TrainAnswer(len(asked), sums.loss, travelling)

    def fit_heads(self, rounds: Iterable[int], local: Local) -> State:
        return {}
