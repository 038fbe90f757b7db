"""The node's half of a method: what it trains, and how it scores.

`NodeMethod` itself is the half of every method that trains heads and a shared item table.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client_app.scorers import SCORERS, Scorer
from common.catalogue import ItemIndex
from common.errors import OverflowedError, SnowdropError
from common.messages import TrainAnswer, TrainRequest, for_wire
from common.methods.fusion import GroupSettings
from common.settings import TrainingSettings
from common.users.groups import Clustered, NearestCentroid
from common.users.heads import HEADS, State
from common.users.mechanism import without_mechanism
from common.users.ragged import Ragged
from common.users.training import Beside, Pull, RoundResult, train_round

_LARGEST = np.float32(2**50)
"""Largest number of a table in a message; sums of its squares are far from overflowing."""


@dataclass(frozen=True, eq=False)
class Local:
    """What a method's half may use of a node, for one message."""

    settings: TrainingSettings
    histories: Ragged
    """Warm items of each user, as rows of the item table, without those that the task holds out."""
    keys: np.ndarray  # uint64 (users,): users' randomness
    arrays: Mapping[str, np.ndarray]
    """Arrays of the message."""
    warm: int
    """Warm items of the catalogue."""
    items: int
    """Items that are to be ranked; 0 where nothing is."""
    state_of: Callable[[], State]
    """The users' private state, read when it is asked for."""
    catalogue: ItemIndex | None = None
    """The item ids and splits that this node was told of."""

    def table(self, name: str, rows: int, columns: int | None = None) -> Tensor:
        """An array of the message as a float32 tensor of the announced shape.

        Raises
        ------
        SnowdropError
            If it is missing or of another shape, or a number in it is NaN or huge: who has that row
            would overflow, and others would not.
        """
        if name not in self.arrays:
            raise SnowdropError(f"the message carries no '{name}'")
        array = self.arrays[name]
        expected = (rows, *(array.shape[-1:] if columns is None else (columns,)))
        if array.shape != expected:
            raise SnowdropError(f"'{name}' has shape {array.shape}, expected {expected}")
        if not (np.abs(array) <= _LARGEST).all():
            raise OverflowedError(f"'{name}' holds NaN, Inf or numbers above {_LARGEST:g}")
        return torch.from_numpy(array.astype(np.float32))

    def number(self, name: str) -> float:
        """An array of the message that holds one number.

        Raises
        ------
        SnowdropError
            If it is missing or holds more.
        """
        return float(self.table(name, 1, 1))


def check_loss(loss_sum: float) -> None:
    """Raise an OverflowedError where a training's loss is no number."""
    if not math.isfinite(loss_sum):
        raise OverflowedError("the loss is NaN or Inf: lower item_lr or head_lr")


def answer_of(
    result: RoundResult,
    request: TrainRequest,
    settings: TrainingSettings,
    shared: Sequence[str] = (),
    told: Sequence[str] = (),
) -> TrainAnswer:
    """What leaves the node after a round: sums of all groups of users one after the other.

    Parameters
    ----------
    result : RoundResult
    request : TrainRequest
        Brings the scale that sums are divided by.
    settings : TrainingSettings
    shared : Sequence[str]
        Parts of the scoring head that users share; their changes are told.
    told : Sequence[str]
        Private parts that are told.
    """
    sums = {"change": result.change}
    for name, parts in (("scorer", shared), ("heads", told)):
        if parts:
            sums[name] = HEADS[settings.head].flat(result.scorer, parts)
    members = result.members
    if members is not None and settings.noise:
        sums["members"], members = members[:, None], None
    travelling = {
        name: scaled(one.reshape(-1, one.shape[-1]).numpy(), request.scale, settings)
        for name, one in sums.items()
    }
    if settings.average == "touches":
        travelling["touches"] = result.touches.flatten().numpy()
    if members is not None:
        travelling["members"] = members.numpy()
    return TrainAnswer(result.users, result.loss_sum, travelling)


def scaled(table: np.ndarray, scale: float, settings: TrainingSettings) -> np.ndarray:
    """A table as it travels; whole steps as they are."""
    if table.dtype.kind == "i":
        return table
    return for_wire(table.astype(np.float32, copy=False) / np.float32(scale), settings)


def groups_of(local: Local, own: GroupSettings, private: Sequence[str]) -> NearestCentroid:
    """The groups whose centroids a message brings. Needs ``centroids``: (groups, numbers).

    Parameters
    ----------
    local : Local
    own : GroupSettings
    private : Sequence[str]
        The parts of the scoring head by which users pick their group.

    Raises
    ------
    SnowdropError
        If the message does not carry them, or groups would depend on other users in spite of noise.
    """
    head, dim = HEADS[local.settings.head], local.settings.dim
    names = [name for name in head.shapes(dim) if name in private]
    centroids = local.table("centroids", own.groups, head.size(names, dim))
    if own.grouping == "clustered":
        if local.settings.noise:
            raise SnowdropError("with noise, users must pick their group by themselves")
        state = local.state_of()
        heads = {name: state[name] for name in names}
        return Clustered(centroids, head, names, own.distance, heads)
    return NearestCentroid(centroids, head, names, own.distance)


class NodeMethod:
    """The node's half of a method; this one trains heads and an item table.

    Parameters
    ----------
    name : str
        Of the method's card.
    """

    scorers: Mapping[str, type[Scorer]] = {}
    """Scorers that this method brings beside those of `client_app.scorers`, by name."""

    noised = True
    """Whether what `train` sends carries the bound and the noise of `common.users.mechanism`."""

    def __init_subclass__(cls) -> None:
        """A half with a training of its own carries noise only where it says so itself."""
        super().__init_subclass__()
        if "train" in vars(cls) and "noised" not in vars(cls):
            cls.noised = False

    def __init__(self, name: str) -> None:
        self.name = name

    def fresh(self, keys: np.ndarray, settings: TrainingSettings) -> State:
        """State of users that never trained, tensors float32 (users, …)."""
        return HEADS[settings.head].fresh(keys, settings)

    def train(self, request: TrainRequest, local: Local) -> tuple[State, TrainAnswer]:
        """One round of every user (algorithm 1, line 18 of MDiffFR).

        Parameters
        ----------
        request : TrainRequest
        local : Local

        Returns
        -------
        state : State
            Users' state after the round.
        answer : TrainAnswer
            Sums over the users.

        Raises
        ------
        SnowdropError
            If the message does not carry what is needed, or numbers overflow.
        """
        settings = local.settings
        table = local.table("table", local.warm, settings.dim)
        state, result = train_round(
            table,
            local.state_of(),
            local.histories,
            local.keys,
            request.round,
            settings,
            self.pull(table, local),
        )
        return state, answer_of(result, request, settings)

    def fit_heads(self, rounds: Iterable[int], local: Local) -> State:
        """Fit the heads of users that send nothing to an item table that others have trained.

        One pass per round, each as in a round of the training, but on the table that was received
        in place of one for each round; sums are forgotten.

        Parameters
        ----------
        rounds : Iterable[int]
            Numbers of the rounds, which draw the negatives.
        local : Local

        Returns
        -------
        State
            Users' state after these passes.

        Raises
        ------
        SnowdropError
            If the message does not carry what is needed.
        """
        table = local.table("table", local.warm, local.settings.dim)
        state, settings = local.state_of(), without_mechanism(local.settings)
        for number in rounds:
            state, _ = train_round(
                table,
                state,
                local.histories,
                local.keys,
                number,
                settings,
                self.pull(table, local),
                Beside(forgiving=True),
            )
        return state

    def pull(self, table: Tensor, local: Local) -> Pull | None:
        """A further gradient on item embeddings, where the method has one."""
        return None

    def scorer(self, name: str, local: Local) -> Scorer:
        """A scorer by name.

        Raises
        ------
        SnowdropError
            If it is unknown, or the message does not carry what it needs.
        """
        known = {**SCORERS, **self.scorers}
        if name not in known:
            raise SnowdropError(f"the scorer {name!r} is unknown")
        return known[name](local)
