"""One round's node half: each user's part of the sum, and scores of its own history and the sum."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from client_app.carried import HistoryBeside, TextWeights, sums_of_rows
from client_app.methods.base import Local, NodeMethod
from client_app.scorers import Scorer
from common.errors import SnowdropError
from common.messages import TrainAnswer, TrainRequest, for_wire
from common.settings import TrainingSettings
from common.users.heads import State
from common.users.item_sums import item_sums, whole_sketch_sum
from common.users.mechanism import whole_noise
from common.users.ragged import Ragged
from common.users.training import participants


class HistoryAndSum(HistoryBeside):
    """What was learnt is x D B E', with the item-item weights B = I − (I − A f A') / d.

    Here d is the diagonal of what it divides. Beside what every `HistoryBeside` needs: ``axes``: A,
    (warm, a); ``gains``: f of each B that is tried, (b, a). The weights that carry the sum, E, are
    C, or else what ``sum_items``, ``sum_warm``, ``sum_columns`` and ``sum_values`` say in the same
    way. ``kernels``, (1, k), are the kernels that are tried: 1 where E is C, and 2 where it is not;
    without it all that came count. D holds ``rarity``, (1, warm), on its diagonal; without it
    D = I. The forms are all triples of a kernel, a B and a share.
    """

    def __init__(self, local: Local) -> None:
        super().__init__(local)
        axes = local.table("axes", local.warm)
        gains = local.table("gains", len(local.arrays.get("gains", ())), axes.shape[1])
        if not len(gains) or not ((gains >= 0) & (gains < 1)).all():
            raise SnowdropError("'gains' must be numbers from 0 to below 1, at least one row")
        self._axes = axes
        self._rarity = torch.ones(local.warm)
        if "rarity" in local.arrays:
            self._rarity = local.table("rarity", 1, local.warm)[0]
        self._learnt = [
            (carrier, *carrier.through(axes, gain))
            for carrier in self._carriers(local)
            for gain in gains
        ]

    def _carriers(self, local: Local) -> list[TextWeights]:
        """Each E that is tried."""
        if "sum_items" not in local.arrays:
            return [self._own]
        further = TextWeights(local, "sum_")
        if "kernels" not in local.arrays:
            return [further]
        kernels = local.table("kernels", 1)[0].tolist()
        if not kernels or not set(kernels) <= {1, 2}:
            raise SnowdropError("'kernels' must be 1 or 2, at least one of them")
        return [self._own if kernel == 1 else further for kernel in kernels]

    def learnt(self, own: Ragged) -> Iterator[Tensor]:
        seen = sums_of_rows(own, self._axes, self._rarity)  # x D A
        for carrier, weights, across in self._learnt:
            yield carrier.carried(own, self._rarity * weights) + seen @ across


class OneRound(NodeMethod):
    """No head is trained: the one thing that leaves the node is the sum over its users."""

    scorers: Mapping[str, type[Scorer]] = {"history-and-sum": HistoryAndSum}
    noised = True

    def fresh(self, keys: np.ndarray, settings: TrainingSettings) -> State:
        return {}

    def train(self, request: TrainRequest, local: Local) -> tuple[State, TrainAnswer]:
        asked = participants(local.keys, request.round, local.settings.fraction)
        histories = local.histories.take(asked)
        basis = local.table("basis", local.warm).numpy() if "basis" in local.arrays else None
        if local.settings.noise:
            return {}, TrainAnswer(len(asked), 0.0, self._noisy_sums(histories, basis, local))
        sums = item_sums(histories, local.warm, basis)
        travelling = {
            name: for_wire((array / request.scale).astype(np.float32), local.settings)
            for name, array in sums.items()
        }
        return {}, TrainAnswer(len(asked), 0.0, travelling)

    def _noisy_sums(
        self, histories: Ragged, basis: np.ndarray | None, local: Local
    ) -> dict[str, np.ndarray]:
        """The sketch in whole steps, with this node's noise where nodes add it by themselves."""
        if local.settings.clip_norm != 1:
            raise SnowdropError("a user's part of this sum has a norm of 1: clip_norm must be 1")
        if basis is None:
            raise SnowdropError("with noise the message needs a 'basis'")
        sketch = whole_sketch_sum(histories, basis)
        return {"sketch": sketch + whole_noise(local.settings, len(histories.counts), sketch.shape)}

    def fit_heads(self, rounds: Iterable[int], local: Local) -> State:
        return {}
