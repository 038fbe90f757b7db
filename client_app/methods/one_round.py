"""One round's node half: each user's part of the sum, and scores of its own history and the sum."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

from client_app.methods.base import Local, NodeMethod
from client_app.scorers import Scorer, standardised
from common.errors import SnowdropError
from common.messages import TrainAnswer, TrainRequest, for_wire
from common.settings import TrainingSettings
from common.users.heads import State
from common.users.item_sums import item_sums, whole_sketch_sum
from common.users.mechanism import whole_noise
from common.users.ragged import Ragged
from common.users.training import participants


class HistoryAndSum(Scorer):
    """(1 − share) · standard(x C') + share · standard(x D B E'), each over a user's items.

    A standardised score has mean 0 and deviation 1 over the items that are ranked, so that a share
    means the same however many they are. The weights of texts are C = U V' + S, and the item-item
    weights B = I − (I − A f A') / d, with d the diagonal of what it divides. Needs ``items``: U,
    (items, r); ``warm``: V, (warm, r); ``columns``, int32 (items, s), and ``values``, (items, s):
    S; ``axes``: A, (warm, a); ``gains``: f of each B that is tried, (b, a); ``shares``: (1, w).
    The weights that carry the sum, E, are C, or else what ``sum_items``, ``sum_warm``,
    ``sum_columns`` and ``sum_values`` say in the same way. ``kernels``, (1, k), are the kernels
    that are tried: 1 where E is C, and 2 where it is not; without it all that came count. D holds
    ``rarity``, (1, warm), on its diagonal; without it D = I. The forms are all triples of a
    kernel, a B and a share. ``asked``, (1, 1), is the share of users to measure by; without it all
    are asked.
    """

    def __init__(self, local: Local) -> None:
        self._histories = local.histories
        self._own = TextWeights(local, "")
        axes = local.table("axes", local.warm)
        gains = local.table("gains", len(local.arrays.get("gains", ())), axes.shape[1])
        if not len(gains) or not ((gains >= 0) & (gains < 1)).all():
            raise SnowdropError("'gains' must be numbers from 0 to below 1, at least one row")
        self._axes = axes
        self._rarity = local.table("rarity", 1, local.warm)[0] if "rarity" in local.arrays else None
        self._learnt = [
            (carrier, *carrier.through(axes, gain))
            for carrier in self._carriers(local)
            for gain in gains
        ]
        self._shares = local.table("shares", 1)[0].tolist()
        self.share = local.number("asked") if "asked" in local.arrays else 1.0
        if not 0 < self.share <= 1:
            raise SnowdropError("'asked' must be a share above 0 and at most 1")

    def _carriers(self, local: Local) -> "list[TextWeights]":
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

    def __call__(self, users: np.ndarray) -> Tensor:
        return next(self.forms(users))

    def forms(self, users: np.ndarray) -> Iterator[Tensor]:
        own = self._histories.take(users)
        history = standardised(self._own.carried(own, None))
        rarity = torch.ones(self._axes.shape[0]) if self._rarity is None else self._rarity
        seen = _sums(own, self._axes, rarity)  # x D A
        for carrier, weights, across in self._learnt:
            further = standardised(carrier.carried(own, rarity * weights) + seen @ across)
            for share in self._shares:
                yield (1 - share) * history + share * further


class TextWeights:
    """Weights of the ranked items on the warm ones, U V' + S.

    Parameters
    ----------
    local : Local
    prefix : str
        Of the names of their arrays in the message.
    """

    def __init__(self, local: Local, prefix: str) -> None:
        self._items = local.table(f"{prefix}items", local.items)
        self._warm = local.table(f"{prefix}warm", local.warm, self._items.shape[1])
        self._sparse = _sparse(local, prefix)

    def carried(self, own: Ragged, weights: Tensor | None) -> Tensor:
        """x C', or (x · weights) C', float32 (users, items)."""
        data = (
            np.ones(len(own.items), np.float32) if weights is None else weights[own.items].numpy()
        )
        shape = len(own.counts), len(self._warm)
        rows = csr_array((data, own.items, own.offsets), shape=shape)
        sums = _sums(own, self._warm, weights)
        return sums @ self._items.T + torch.from_numpy((rows @ self._sparse.T).toarray())

    def through(self, axes: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """A B as 1 − 1/d, float32 (warm,), and f A' (C / d)', float32 (a, items)."""
        one = 1 / (1 - (axes.square() @ gain))
        divided = axes * one[:, None]
        across = (divided.T @ self._warm) @ self._items.T
        across += torch.from_numpy((self._sparse @ divided.numpy()).T)
        return 1 - one, gain[:, None] * across


def _sums(own: Ragged, rows: Tensor, weights: Tensor | None) -> Tensor:
    """The sum of the rows of each user's items, each times its weight, float32 (users, k)."""
    items, offsets = torch.from_numpy(own.items), torch.from_numpy(own.offsets[:-1])
    each = None if weights is None else weights[items]
    return embedding_bag(items, rows, offsets, mode="sum", per_sample_weights=each)


def _sparse(local: Local, prefix: str) -> csr_array:
    """S, float32 (items, warm)."""
    values = local.table(f"{prefix}values", local.items).numpy()
    columns = local.arrays.get(f"{prefix}columns")
    if columns is None or columns.shape != values.shape or columns.dtype.kind != "i":
        raise SnowdropError(f"'{prefix}columns' are missing, or not as many as '{prefix}values'")
    if columns.size and not 0 <= columns.min() <= columns.max() < local.warm:
        raise SnowdropError(f"'{prefix}columns' name warm items that the catalogue lacks")
    offsets = np.arange(len(values) + 1) * values.shape[1]
    return csr_array((values.ravel(), columns.ravel(), offsets), shape=(len(values), local.warm))


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
