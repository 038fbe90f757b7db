"""A softmax over warm items in a round: users' gradients on an item table, and their sum.

Each user's history is split at random in a context and targets (20 to 80 % of it). With E the item
table, the user's head h is the unit vector of the mean of its context's rows, item i has the score
z_i = s h · e_i, and the user minimises

    n^(−½) Σ_t (log Σ_i exp z_i − z_t),    i over the warm items outside the context,

where t runs over its n targets. The gradient has a closed form of rank 1 on the rows that are
scored, and one and the same vector on each row of the context, so that its norm needs no matrix of
a user's own.
"""

from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from common.settings import TrainingSettings
from common.users.mechanism import Mechanism, powers
from common.users.ragged import Ragged
from common.users.randomness import permuted, stream, uniform

CHUNK_NUMBERS = 2**22
"""Scores of (users × items) that are held at once, or those of one user."""

LEAST_TARGETS, MOST_TARGETS = 0.2, 0.8
"""Between these shares of a history are targets."""

_LEAST_LENGTH = 1e-12
"""A mean of rows that is shorter has no direction."""


@dataclass(frozen=True, eq=False)
class SoftmaxSums:
    """Sums over users, of the mechanism's dtype or float64, noise included."""

    change: Tensor
    """(warm, d): minus the gradient on the item table."""
    log_scale: Tensor
    """(1, 1): minus the gradient on log s."""
    loss: float


def softmax_sums(
    table: Tensor,
    log_scale: float,
    histories: Ragged,
    keys: np.ndarray,
    round_number: int,
    mechanism: Mechanism,
    sampled: np.ndarray | None = None,
) -> SoftmaxSums:
    """What users add to a round: each one's step down its loss, bounded by the mechanism.

    A user with fewer than two items adds nothing. What a user adds depends on its history, its key
    and the round alone.

    Parameters
    ----------
    table : Tensor, float32 (warm, d)
        E.
    log_scale : float
        log s.
    histories : Ragged
        Rows of the table.
    keys : ndarray, uint64 (users,)
    round_number : int
    mechanism : Mechanism
        Bounds a user's step on E and log s together.
    sampled : ndarray, int64 (k,), optional
        Distinct rows that stand for all the others, uniformly drawn: a softmax is then over these
        and the user's own targets, and each of them that is no target counts warm / k times. None:
        over all rows.
    """
    users = np.flatnonzero(histories.counts >= 2)
    change = torch.zeros(table.shape, dtype=_total_dtype(mechanism))
    scale_change = torch.zeros(1, 1, dtype=change.dtype)
    loss = 0.0
    # In a product of matrices, the last bits of a user's numbers depend on who else is in it. Noise
    # is made for a part that does not, so that each user is then alone.
    alone = not mechanism.dtype.is_floating_point
    size = 1 if alone else _chunk_size(histories, len(table), sampled)
    for part in np.split(users, range(size, len(users), size)):
        chunk = _Chunk(table, log_scale, histories.take(part), keys[part], round_number, sampled)
        elsewhere = chunk.powers(mechanism.order)
        kept = mechanism.kept(torch.zeros(len(part), 0, 0), elsewhere)
        change[chunk.columns] += mechanism.products(chunk.scores, chunk.heads, kept)
        to_context = mechanism.parts(chunk.to_context, kept)
        change += torch.from_numpy(chunk.context.T.astype(_like(to_context)) @ to_context.numpy())
        scale_change += mechanism.parts(chunk.to_scale, kept).sum(0, keepdim=True)
        loss += float(chunk.losses.double().sum())
    count = len(histories.counts)
    return SoftmaxSums(
        change + mechanism.noise(count, tuple(change.shape)),
        scale_change + mechanism.noise(count, (1, 1)),
        loss,
    )


def sampled_rows(
    warm: int, count: int, settings: TrainingSettings, round_number: int
) -> np.ndarray | None:
    """``count`` of ``warm`` rows, the same for all users of a round, int64; None: all of them.

    They follow from what everybody knows, so that nobody learns anything from them.
    """
    if not 0 < count < warm:
        return None
    rng = np.random.default_rng((settings.seed, round_number))
    return rng.choice(warm, count, replace=False)


def split_off_targets(histories: Ragged, keys: np.ndarray, round_number: int) -> np.ndarray:
    """Which interactions are targets of a round, bool (interactions,); the others are context.

    Of n ≥ 2 items, at least one is a target and at least one is not.

    Parameters
    ----------
    histories : Ragged
        At least two items each.
    keys : ndarray, uint64 (users,)
    round_number : int
    """
    counts = histories.counts
    drawn = uniform(stream(keys, "share of targets", round_number), 1)[:, 0]
    share = LEAST_TARGETS + (MOST_TARGETS - LEAST_TARGETS) * drawn
    wanted = np.clip(np.round(share * counts), 1, counts - 1)
    starts = np.repeat(stream(keys, "targets", round_number), counts)
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], counts)
    order = permuted(starts, place, np.repeat(counts, counts))
    chosen: np.ndarray = order < np.repeat(wanted, counts)
    return chosen


class _Chunk:
    """Minus the gradients of some users, in factors.

    On the rows ``columns`` of the table it is the product of ``scores``, (users, columns), and
    ``heads``, (users, d); on each row of a user's context it is ``to_context``, (users, d). No row
    is in both, since the context is not scored.
    """

    def __init__(
        self,
        table: Tensor,
        log_scale: float,
        histories: Ragged,
        keys: np.ndarray,
        round_number: int,
        sampled: np.ndarray | None,
    ) -> None:
        chosen = split_off_targets(histories, keys, round_number)
        self.context = _rows(histories, ~chosen, len(table))
        self.columns, unsampled, weight = _scored(histories, len(table), sampled)
        owners = np.repeat(np.arange(len(keys)), histories.counts)
        places = np.searchsorted(self.columns, histories.items)
        users, targets = _pairs(owners[chosen], places[chosen])
        self.sizes = torch.from_numpy(np.diff(self.context.indptr)).float()[:, None]
        counts = torch.from_numpy(histories.counts).float()[:, None] - self.sizes

        means = torch.from_numpy(self.context @ table.numpy()) / self.sizes
        lengths = means.norm(dim=1, keepdim=True)
        inverse = torch.where(lengths > _LEAST_LENGTH, 1 / lengths.clamp(min=_LEAST_LENGTH), 0.0)
        self.heads = means * inverse
        rows, scale = table[self.columns], float(np.exp(log_scale))
        plain = (self.heads @ rows.T).mul_(scale)
        logits = plain + np.log(weight)
        logits[:, unsampled] = -torch.inf
        logits[users, targets] = plain[users, targets]
        logits[_pairs(owners[~chosen], places[~chosen])] = -torch.inf
        normaliser = logits.logsumexp(1, keepdim=True)

        # Minus the derivatives of the loss by z: n^(−½) (1 for a target, less n times the softmax).
        by_score = logits.sub_(normaliser).exp_().mul_(-counts)
        by_score[users, targets] += 1
        by_score /= counts.sqrt()
        found = torch.zeros(len(keys)).index_add_(0, users, plain[users, targets])
        self.losses = (counts * normaliser)[:, 0].sub(found) / counts[:, 0].sqrt()
        self.to_scale = (by_score * plain).sum(1, keepdim=True)
        self.scores = by_score.mul_(scale)
        to_heads = self.scores @ rows
        along = (to_heads * self.heads).sum(1, keepdim=True)
        self.to_context = (to_heads - along * self.heads) * inverse / self.sizes

    def powers(self, order: int) -> Tensor:
        """Σ |x|^order of each user's numbers, float64 (users,)."""
        of_scores, of_heads, of_context, of_scale = (
            powers(one.double(), order).sum(1)
            for one in (self.scores, self.heads, self.to_context, self.to_scale)
        )
        return of_scores * of_heads + self.sizes[:, 0].double() * of_context + of_scale


def _scored(
    histories: Ragged, warm: int, sampled: np.ndarray | None
) -> tuple[np.ndarray, Tensor, float]:
    """Rows that stand in the scores, ascending; which of them were not drawn; what one counts."""
    if sampled is None:
        return np.arange(warm), torch.zeros(warm, dtype=torch.bool), 1.0
    columns = np.union1d(sampled, histories.items)
    return columns, torch.from_numpy(~np.isin(columns, sampled)), warm / len(sampled)


def _chunk_size(histories: Ragged, warm: int, sampled: np.ndarray | None) -> int:
    """Users whose scores are `CHUNK_NUMBERS` at most, or twice as many where rows are drawn."""
    size = CHUNK_NUMBERS // warm
    if sampled is not None:
        longest = int(histories.counts.max(initial=1))
        size = max(size, min(CHUNK_NUMBERS // len(sampled), isqrt(CHUNK_NUMBERS // longest)))
    return max(1, size)


def _rows(histories: Ragged, wanted: np.ndarray, warm: int) -> csr_array:
    """Ones where users have the wanted interactions, float32 (users, warm)."""
    ends = np.concatenate([[0], np.cumsum(wanted)])[histories.offsets]
    items = histories.items[wanted]
    return csr_array((np.ones(len(items), np.float32), items, ends), shape=(len(ends) - 1, warm))


def _pairs(users: np.ndarray, places: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(users), torch.from_numpy(places)


def _total_dtype(mechanism: Mechanism) -> torch.dtype:
    return torch.float64 if mechanism.dtype.is_floating_point else mechanism.dtype


def _like(numbers: Tensor) -> str:
    return str(numbers.dtype).removeprefix("torch.")
