"""Node answers → the next item table; whatever is malformed is refused."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import OverflowedError, SnowdropError
from common.messages import CountAnswer, EvaluateAnswer, TrainAnswer
from common.settings import RunSettings


@dataclass(frozen=True, eq=False)
class Averaged:
    """What a round's usable answers come to."""

    change: Tensor  # float32 (warm, d): to be added to the item table, before the server's step
    users: int
    loss: float


def check(answer: TrainAnswer, shape: tuple[int, int], settings: RunSettings) -> None:
    """Refuse an answer that cannot be averaged.

    Raises
    ------
    SnowdropError
        On a wrong shape or type, NaN or Inf, a norm above ``max_update_norm`` for each user, or
        counts that cannot be.
    """
    if answer.change.shape != shape:
        raise SnowdropError(f"its change has shape {answer.change.shape}, expected {shape}")
    if answer.change.dtype != settings.wire_dtype or not np.isfinite(answer.change).all():
        raise SnowdropError(f"its change holds NaN, Inf or no {settings.wire_dtype}")
    _check_users(answer.users, settings)
    if answer.users == 0 and answer.change.any():
        raise SnowdropError("it claims 0 users and a change")
    if not (np.isfinite(answer.loss_sum) and 0 < answer.scale < np.inf):
        raise SnowdropError("its loss or scale is NaN, Inf or not above 0")
    norm = answer.scale * float(np.linalg.norm(answer.change.astype(np.float64)))
    if not norm < float(np.finfo(np.float32).max):
        raise OverflowedError(f"its change has norm {norm:.3g}, which no item table can hold")
    if settings.max_update_norm and not norm <= settings.max_update_norm * answer.users:
        raise SnowdropError(
            f"its change has norm {norm:.3g} for {answer.users} users, above max_update_norm = "
            f"{settings.max_update_norm:g} a user"
        )
    if settings.average == "touches":
        touches = answer.touches
        if touches is None or touches.shape != shape[:1] or touches.dtype.kind != "i":
            raise SnowdropError("its counts of touched rows are missing or misshapen")
        if touches.min(initial=0) < 0 or touches.max(initial=0) > answer.users:
            raise SnowdropError("its counts of touched rows exceed its users")
        if answer.change[touches == 0].any():
            raise SnowdropError("it changes rows that no user touched")


def _check_users(users: int, settings: RunSettings) -> None:
    if users < 0:
        raise SnowdropError(f"it claims {users} users")
    if 0 < settings.max_node_users < users:
        raise SnowdropError(
            f"it claims {users} users, above max_node_users = {settings.max_node_users}"
        )


def check_metrics(answer: EvaluateAnswer, names: Sequence[str], settings: RunSettings) -> None:
    """Refuse sums of metrics that cannot be; every metric lies between 0 and 1 for each user.

    Raises
    ------
    SnowdropError
    """
    _check_users(answer.users, settings)
    sums = np.asarray(answer.sums)
    if answer.names != list(names) or len(sums) != len(names):
        raise SnowdropError("its metrics are not those asked for")
    if not ((sums >= 0) & (sums <= answer.users + 1e-6)).all():
        raise SnowdropError("its sums of metrics cannot be")


def check_counts(answer: CountAnswer, rows: int, settings: RunSettings) -> np.ndarray:
    """The counts of an answer, int64 (rows,); what cannot be is refused.

    Raises
    ------
    SnowdropError
    """
    users = answer.users
    if users.shape != (rows,) or users.dtype != np.int64 or users.min(initial=0) < 0:
        raise SnowdropError("its counts of users are misshapen or negative")
    _check_users(int(users.max(initial=0)), settings)
    return users


def average(answers: Sequence[TrainAnswer], by: str) -> Averaged:
    """Mean change of the item table over users (algorithm 1, line 7).

    Σ_nodes Σ_u (E_u − E) / Σ_nodes users; with ``by = "touches"`` each row is divided by the
    users that touched it instead.

    Raises
    ------
    SnowdropError
        If no user trained.
    """
    users = sum(answer.users for answer in answers)
    if not users:
        raise SnowdropError("no user trained in this round")
    total = np.zeros(answers[0].change.shape, np.float64)
    touched = np.zeros(len(total), np.int64)
    for answer in answers:
        total += answer.change.astype(np.float64) * answer.scale
        if by == "touches" and answer.touches is not None:
            touched += answer.touches
    divisor = np.maximum(touched, 1)[:, None] if by == "touches" else users
    return Averaged(
        change=torch.from_numpy((total / divisor).astype(np.float32)),
        users=users,
        loss=sum(answer.loss_sum for answer in answers) / users,
    )
